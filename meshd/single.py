"""One process of a kind at a time: a lock that the kernel takes back however its holder ends (flock(2))."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meshd.config import ConfigError


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """While the block lasts nobody else gets past here with this file. Raises ConfigError if somebody has."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise ConfigError(f"{path} is held by process {file.read().strip()}: stop that one first") from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
