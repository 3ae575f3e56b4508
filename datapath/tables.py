"""Maglev tables in the kernel: each is a map of its own with one value, referred to by md_maglev. Called by maps.py."""

import ctypes
import os
import sys
from collections.abc import Sequence

from datapath import bpf
from datapath.layout import MapType

_NAME = b"md_maglev_in"


def create_table(table: bytes) -> int:
    """The descriptor of a new map that holds `table`; it stays as long as md_maglev refers to it. Raises OSError."""
    fd = bpf.create_map(MapType.ARRAY, key_size=4, value_size=len(table), max_entries=1, name=_NAME)
    key = ctypes.create_string_buffer(4)
    value = ctypes.create_string_buffer(table, len(table))
    try:
        attr = bpf.ElementAttr(map_fd=fd, key=bpf.address_of(key), value=bpf.address_of(value))
        bpf.call(bpf.MAP_UPDATE_ELEM, attr)
    except OSError:
        os.close(fd)
        raise
    return fd


def encode_descriptors(fds: Sequence[int]) -> list[bytes]:
    """As md_maglev takes them."""
    return [fd.to_bytes(4, sys.byteorder) for fd in fds]


def read_table(map_id: bytes) -> bytes:
    """The table of the map with this number, which md_maglev tells. Raises OSError."""
    fd = bpf.open_map(int.from_bytes(map_id, sys.byteorder))
    try:
        size = bpf.map_info(fd).value_size
        key = ctypes.create_string_buffer(4)
        value = ctypes.create_string_buffer((size + 7) // 8 * 8)  # the kernel rounds up
        attr = bpf.ElementAttr(map_fd=fd, key=bpf.address_of(key), value=bpf.address_of(value))
        bpf.call(bpf.MAP_LOOKUP_ELEM, attr)
        return value.raw[:size]
    finally:
        os.close(fd)
