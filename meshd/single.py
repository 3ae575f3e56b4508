"""One process of a kind at a time: a lock that the kernel takes back however its holder ends (flock(2))."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from meshd.config import ConfigError


@contextmanager
def alone(path: Path, remedy: str = "stop that one first") -> Iterator[None]:
    """While the block lasts nobody else gets past here with this file, which goes with the block. Raises ConfigError,
    with the remedy, if somebody has it, or if no file can be there.
    """
    while True:
        with _open(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise ConfigError(f"{path} is held by process {file.read().strip()}: {remedy}") from error
            if not stands(file.fileno(), path):
                continue
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def stands(opened: int, path: Path) -> bool:
    """Is the file that was opened still the one of that name? Else who had the lock before removed it meanwhile."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(opened), path.stat())
    return False


def _open(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path.open("a+")
    except OSError as error:
        raise ConfigError(f"the lock {path} cannot be made: {error.filename}: {error.strerror}") from error
