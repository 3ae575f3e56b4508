"""Gives back what a large list took for a moment, and lets Python's collector of cycles leave alone what stays.

To look for garbage among a million objects stands still for a good part of a second; most of what was heard stays.
"""

import ctypes
import gc
from collections.abc import Callable
from contextlib import suppress

MANY = 10_000
"""Records that were listed, for which it is worth it."""
_YOUNG = 10_000
_MMAP_THRESHOLD, _ARENA_MAX = -3, -8  # malloc.h: M_…
_LARGE = 1 << 20  # bytes


def set_up() -> None:
    """Pages of lists are given back as soon as they are done with, not kept for the next one, and threads share what is
    free; the collector looks only after as many new objects as a list makes in a moment: nearly all of those stay.
    """
    gc.set_threshold(_YOUNG)
    with suppress(OSError, AttributeError):  # another C library
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, _LARGE)
        library.mallopt(_ARENA_MAX, 1)


class Tidying:
    """`look` now and then with the number of records that lists have brought, and whether all of them is dealt with."""

    def __init__(self, tidy: Callable[[], None]) -> None:
        self._tidy = tidy
        self._done = self._seen = 0

    def look(self, listed: int, *, settled: bool) -> None:
        """Tidies once when lists have brought MANY records and nothing has come since the last look."""
        quiet, self._seen = listed == self._seen, listed
        if settled and quiet and listed - self._done >= MANY:
            self._done = listed
            self._tidy()


def tidy() -> None:
    """Stands still for about a tenth of a second in a large mesh."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
