"""Keeps many from doing the same at once: turns come one after another, at a distance."""

import asyncio
import time

LISTS_APART_S = 0.02
"""255 clusters that come back at once are listed within 5 s, not at once."""


class Pacer:
    """`await turn()` returns at once if nobody else had a turn within the last `apart_s` seconds."""

    def __init__(self, apart_s: float) -> None:
        self._apart_s = apart_s
        self._next = 0.0

    async def turn(self) -> None:
        now = time.monotonic()
        at = max(now, self._next)
        self._next = at + self._apart_s
        if at > now:
            await asyncio.sleep(at - now)
