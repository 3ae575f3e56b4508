"""The ctypes twin of bpf/service_layout.h: keys and values of the maps of services."""

import ctypes
from enum import IntEnum, IntFlag

from datapath.words import be16, u8, u16, u32, u64, v4, v6


class SvcFlag(IntFlag):
    AFFINITY = 1
    MAGLEV = 2
    WEIGHTED = 4


class ClientKind(IntEnum):
    NETNS = 1
    ADDRESS = 2


class NatDirection(IntEnum):
    FORWARD = 0
    REPLY = 1
    LOOP = 2


class Svc4Key(ctypes.Structure):
    _fields_ = (
        ("address", v4),
        ("port", be16),
        ("slot", u16),
        ("protocol", u8),
        ("scope", u8),
        ("pad", u8 * 2),
    )


class Svc6Key(ctypes.Structure):
    _fields_ = (
        ("address", v6),
        ("port", be16),
        ("slot", u16),
        ("protocol", u8),
        ("scope", u8),
        ("pad", u8 * 2),
    )


class Svc(ctypes.Structure):
    _fields_ = (("backend", u32), ("count", u16), ("flags", u16))


class FrontKey(ctypes.Structure):
    _fields_ = (("address", v6), ("port", be16), ("protocol", u8), ("family", u8))


class AffmKey(ctypes.Structure):
    _fields_ = (*FrontKey._fields_, ("backend", u32))


class AffKey(ctypes.Structure):
    _fields_ = (("client", v6), *FrontKey._fields_, ("kind", u8), ("pad", u8 * 3))


class Aff(ctypes.Structure):
    _fields_ = (("used_ns", u64), ("backend", u32), ("pad", u32))


class NatKey(ctypes.Structure):
    _fields_ = (
        ("source", v6),
        ("destination", v6),
        ("source_port", be16),
        ("destination_port", be16),
        ("protocol", u8),
        ("family", u8),
        ("direction", u8),
        ("pad", u8),
    )


class Nat(ctypes.Structure):
    _fields_ = (("address", v6), ("port", be16), ("first", u16), ("backend", u32))


class Be4(ctypes.Structure):
    _fields_ = (("address", v4), ("port", be16), ("protocol", u8), ("flags", u8))


class Be6(ctypes.Structure):
    _fields_ = (("address", v6), ("port", be16), ("protocol", u8), ("flags", u8))


class Rev4Key(ctypes.Structure):
    _fields_ = (("cookie", u64), ("address", v4), ("port", be16), ("pad", u8 * 2))


class Rev4(ctypes.Structure):
    _fields_ = (("address", v4), ("port", be16), ("pad", u8 * 2))


class Rev6Key(ctypes.Structure):
    _fields_ = (("cookie", u64), ("address", v6), ("port", be16), ("pad", u8 * 6))


class Rev6(ctypes.Structure):
    _fields_ = (("address", v6), ("port", be16), ("pad", u8 * 2))
