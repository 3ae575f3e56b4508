"""A big heap and Python's collector of cycles: it would look at every cached key again and again, and stop all else."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting_heap() -> Iterator[None]:
    """What is made within is not looked at for cycles, neither now nor later: it must have none to be freed."""
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
