"""md_known, mapped into this process: setting a bit is a write to memory."""

import mmap

import numpy as np

from datapath.known import SIZE, Rows


class KnownMap:
    """The map behind a descriptor. Raises OSError, ValueError where it is smaller. Close it."""

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, SIZE)

    def mark(self, bits: Rows) -> None:
        """Set these bits (known.py), each named once. What is written after this is found."""
        held = np.frombuffer(self._memory, np.uint8)
        places, masks = bits >> 3, (1 << (bits & 7)).astype(np.uint8)
        missing = held[places] & masks == 0
        if missing.any():
            np.bitwise_or.at(held, places[missing], masks[missing])

    def close(self) -> None:
        self._memory.close()
