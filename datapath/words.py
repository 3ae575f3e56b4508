"""The words that keys and values of maps are made of."""

import ctypes

u8 = ctypes.c_uint8
u16 = ctypes.c_uint16
u32 = ctypes.c_uint32
u64 = ctypes.c_uint64
be16 = u16.__ctype_be__
v4 = u8 * 4  # an address as its packed bytes, which are in network order
v6 = u8 * 16  # the same, or four zero-padded IPv4 bytes where both families share a map
mac = u8 * 6
