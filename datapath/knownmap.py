"""md_known, mapped into this process: setting a bit is a write to memory."""

import mmap
from collections.abc import Iterable

from datapath.known import SIZE


class KnownMap:
    """The map behind a descriptor. Raises OSError, ValueError where it is smaller. Close it."""

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, SIZE)

    def mark(self, bits: Iterable[int]) -> None:
        """Set these bits (known.py). What is written after this is found."""
        memory = self._memory
        for bit in bits:
            place, mask = bit >> 3, 1 << (bit & 7)
            if not memory[place] & mask:
                memory[place] |= mask

    def close(self) -> None:
        self._memory.close()
