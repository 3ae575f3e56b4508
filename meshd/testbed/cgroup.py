"""Cgroups of nodes: the socket load balancer hangs on them, and whatever runs in them is the testbed's own."""

import errno
import time
from pathlib import Path

MOUNTS = Path("/proc/mounts")


class CgroupError(Exception):
    """The cgroup file system does not do what the testbed needs."""


def find_root(mounts: Path = MOUNTS) -> Path:
    """Where cgroup v2 is mounted: /sys/fs/cgroup, or /sys/fs/cgroup/unified beside version 1."""
    for line in mounts.read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    raise CgroupError("cgroup v2 is not mounted; mount it with: mount -t cgroup2 none /sys/fs/cgroup")


def members(cgroup: Path) -> list[int]:
    """Process ids in the cgroup and all below it."""
    pids: list[int] = []
    for procs in sorted(cgroup.rglob("cgroup.procs")):
        try:
            pids += [int(line) for line in procs.read_text().split()]
        except (FileNotFoundError, OSError):  # removed meanwhile
            continue
    return pids


def remove(cgroup: Path, *, deadline_s: float = 10.0) -> None:
    """Kills (SIGKILL) everything in the cgroup and below, then removes it. Absent is success.

    Raises CgroupError if something is still there after `deadline_s` seconds.
    """
    if not cgroup.is_dir():
        return
    end = time.monotonic() + deadline_s
    while True:
        try:
            (cgroup / "cgroup.kill").write_text("1")
            _remove_folders(cgroup)
            return
        except OSError as error:  # busy: a killed process is not quite gone
            if error.errno != errno.EBUSY or time.monotonic() > end:
                raise CgroupError(f"{cgroup} cannot be removed: {error.strerror}; in it: {members(cgroup)}") from error
        time.sleep(0.02)


def _remove_folders(cgroup: Path) -> None:
    folders = [path for path in cgroup.rglob("*") if path.is_dir()]
    for folder in [*sorted(folders, key=lambda path: len(path.parts), reverse=True), cgroup]:
        folder.rmdir()
