"""Waiting for what other processes bring about: until a condition holds, never a bare sleep."""

import time
from collections.abc import Callable

DEADLINE_S = 60.0


def until(fact: Callable[[], object], what: object = "") -> None:
    """`what` is named if it does not come; it may be a function that tells how things are then."""
    end = time.monotonic() + DEADLINE_S
    while not fact():
        assert time.monotonic() < end, f"not in time: {what() if callable(what) else what}"
        time.sleep(0.02)
