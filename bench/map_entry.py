"""One entry of a pinned map, looked for as cheaply as it can be: who measures shall not take the CPU from those
measured.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datapath import bpf

VALUE_MAX = 64  # bytes; more than an entry of the maps that are looked at


class MapEntry:
    """One key of the map behind `fd`."""

    def __init__(self, fd: int, key: bytes) -> None:
        self._key, self._value = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(VALUE_MAX)
        self._attr = bpf.ElementAttr(map_fd=fd, key=bpf.address_of(self._key), value=bpf.address_of(self._value))

    def stands(self) -> bool:
        try:
            bpf.call(bpf.MAP_LOOKUP_ELEM, self._attr)
        except FileNotFoundError:
            return False
        return True


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A pinned map's descriptor."""
    fd = bpf.get_object(path)
    try:
        yield fd
    finally:
        os.close(fd)
