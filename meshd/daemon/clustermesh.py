"""The clustermesh folder: which remote clusters there are, by file; changes take effect without a restart.

A file is a remote iff it contains `endpoints:` (Cilium's rule), its name is the cluster's; it leaves when the file is
gone, not when it is emptied or being written. The folder is read as a
whole whenever something in it moved (Kubernetes swaps the symlink `..data`), and now and then in any case; only
content that differs counts.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import NoReturn

from watchfiles import awatch

from meshd.daemon.remote import Remote
from meshd.daemon.remotefile import BadRemoteFile, RemoteFile, is_remote_file, parse_remote_file
from wire.keys import is_cluster_name

logger = logging.getLogger(__name__)

RESCAN_S = 5.0
DEBOUNCE_MS = 50
FILE_MAX = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Scan:
    """What a look at the folder found: usable files by cluster with the hash of their content, and the others' faults.

    A file that became unusable is in `problems` only: its cluster is not gone, it keeps the settings it had.
    """

    files: Mapping[str, RemoteFile] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


_NOTHING = Scan()


def scan_folder(folder: Path, *, own: str, known: Scan = _NOTHING) -> Scan:
    """Reads all files; never raises. `known` are the clusters whose files were usable before: what has not changed is
    not parsed again.
    """
    files: dict[str, RemoteFile] = {}
    hashes: dict[str, str] = {}
    problems: dict[str, str] = {}
    try:
        paths = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        return Scan(problems={"": f"{folder} cannot be read: {error.strerror}"})
    for path in paths:
        try:
            text = _read(path)
            if path.name == own:
                continue
            if not is_remote_file(text):
                if path.name in known.files:
                    raise BadRemoteFile("says no `endpoints:` any more: mend it, or remove it to leave the cluster")
                continue
            if not is_cluster_name(path.name):
                raise BadRemoteFile("its name is no cluster name: 1 to 32 of a-z, 0-9 and '-', no '-' at the ends")
            digest = sha256(text.encode()).hexdigest()
            same = known.files[path.name] if known.hashes.get(path.name) == digest else None
            files[path.name] = same or parse_remote_file(path.name, text, folder=folder)
            hashes[path.name] = digest
        except BadRemoteFile as error:
            problems[path.name] = str(error)
    return Scan(files, hashes, problems)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(FILE_MAX).decode(errors="replace")
    except OSError as error:
        raise BadRemoteFile(f"cannot be read: {error.strerror}") from error


class Clustermesh:
    """Keeps a running Remote for every usable file. `make` makes one, `leave` drains a cluster whose file
    is gone, `changed` is told which cluster has another file.
    """

    def __init__(
        self,
        folder: Path,
        *,
        own: str,
        group: asyncio.TaskGroup,
        make: Callable[[RemoteFile], Remote],
        leave: Callable[[str], None],
        changed: Callable[[str], None] = lambda cluster: None,
    ) -> None:
        self._changed = changed
        self.remotes: dict[str, Remote] = {}
        self.problems: Mapping[str, str] = {}
        self._folder, self._own, self._group, self._make, self._leave = folder, own, group, make, leave
        self._files: dict[str, RemoteFile] = {}
        self._hashes: dict[str, str] = {}
        self._tasks: dict[str, asyncio.Task[NoReturn]] = {}

    def refresh(self) -> None:
        """Makes the running remotes those of the folder."""
        scan = scan_folder(self._folder, own=self._own, known=Scan(self._files, self._hashes))
        for name, problem in scan.problems.items():
            if self.problems.get(name) != problem:
                logger.error("clustermesh file cannot be used", extra={"file": name or "-", "reason": problem})
        self.problems = scan.problems
        if "" in scan.problems:
            return  # an unreadable folder says nothing about who left
        for name in self._hashes.keys() - scan.files.keys() - scan.problems.keys():
            self._remove(name)
        for name, file in scan.files.items():
            if self._hashes.get(name) != scan.hashes[name]:
                self._put(file)
                self._files[name], self._hashes[name] = file, scan.hashes[name]

    async def follow(self) -> NoReturn:
        """Refreshes when the folder moves."""
        while True:
            async for _ in _moves(self._folder):
                self.refresh()

    def _put(self, file: RemoteFile) -> None:
        name = file.cluster
        if task := self._tasks.pop(name, None):
            task.cancel()
            self.remotes[name].replace(file)
            self._changed(name)
        else:
            self.remotes[name] = self._make(file)
        logger.info("remote configured", extra={"cluster": name, "targets": ",".join(file.targets)})
        self._tasks[name] = self._group.create_task(self.remotes[name].run(), name=f"remote {name}")

    def _remove(self, name: str) -> None:
        self._tasks.pop(name).cancel()
        self.remotes.pop(name).leave()
        del self._files[name], self._hashes[name]
        self._leave(name)
        logger.info("remote removed", extra={"cluster": name})


async def _moves(folder: Path) -> AsyncIterator[None]:
    """Yields when something in the folder moved, and every RESCAN_S; ends if it cannot be watched (any more)."""
    try:
        async for _ in awatch(
            folder,
            watch_filter=None,
            debounce=DEBOUNCE_MS,
            rust_timeout=int(RESCAN_S * 1000),
            yield_on_timeout=True,
        ):
            yield
    except (FileNotFoundError, RuntimeError):  # watchfiles: the folder is not there
        await asyncio.sleep(RESCAN_S)
        yield
