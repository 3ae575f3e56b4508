"""What tests that were killed have left: namespaces, cgroups and mounts of bpffs of a Machine (netns.py) whose process
is dead. A lock that the kernel takes back with the process says so: what belongs to a suite that runs is never touched.

`python -m tests.support.leftovers` removes them; so does every session of tests when it begins.
"""

import fcntl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

FOLDER = Path("/run/meshd-tests")


@contextmanager
def owned(tag: str) -> Iterator[TextIO]:
    """While the block lasts, all that is named by the tag is this process'. Mounts are written there, one a line."""
    FOLDER.mkdir(exist_ok=True, mode=0o700)
    path = FOLDER / tag
    with path.open("x") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(f"{tag}\n")
        file.flush()
        try:
            yield file
        finally:
            path.unlink()


def sweep(folder: Path = FOLDER) -> list[str]:
    """The tags of which nobody lives any more, and nothing is left now but what a process still uses."""
    return [path.name for path in sorted(folder.glob("*")) if _is_swept(path)]


def _is_swept(path: Path) -> bool:
    with suppress(FileNotFoundError), path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        tag, *mounts = file.read().splitlines() or [""]
        if tag != path.name:  # it has only just been made
            return False
        for mount in mounts:
            subprocess.run(["umount", mount], check=False, capture_output=True)
        for space in Path("/run/netns").glob(f"md-{tag}-*"):
            subprocess.run(["ip", "netns", "del", space.name], check=False, capture_output=True)
        for group in _cgroups().glob(f"md-{tag}-*"):
            with suppress(OSError):  # a process is in it
                group.rmdir()
        path.unlink(missing_ok=True)
        return True
    return False


def _cgroups() -> Path:
    from tests.support.netns import cgroup2

    return cgroup2()


if __name__ == "__main__":
    for swept in sweep():
        print(f"removed what a killed test left: {swept}")
