"""The manifests source: a folder of ordinary Kubernetes YAML, watched.

One thread waits for the kernel's notices and reads; notices only say where to look, and now and then everything is
looked at, so a lost notice costs time and nothing else. Write files aside and rename them into place: a file that is
read half-written may miss a document for a moment.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from watchfiles._rust_notify import RustNotify

from meshd.agent.sources.documents import Problem
from meshd.agent.sources.folder import ManifestFolder
from meshd.agent.state import Changes

logger = logging.getLogger(__name__)

#: How often the watcher looks whether the kernel has told it something, and how long it gathers more of it, ms.
STEP_MS, DEBOUNCE_MS = 2, 30
#: Everything is looked at this often, ms.
RESCAN_MS = 10_000


class ManifestSource:
    """`changes` yields first everything, then what changes. A problem is logged once, when it comes."""

    def __init__(self, folder: Path) -> None:
        self._folder = ManifestFolder(folder.resolve())
        self._problems: list[Problem] = []
        self._stop = threading.Event()
        self._notify: RustNotify | None = None
        self._watched = 0

    @property
    def name(self) -> str:
        return f"manifests {self._folder.folder}"

    @property
    def problems(self) -> list[Problem]:
        """What is wrong in the folder now."""
        return self._problems

    @property
    def seconds(self) -> dict[str, float]:
        return {}

    async def changes(self) -> AsyncGenerator[Changes]:
        """Never ends by itself."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "manifests") as thread:
            try:
                self._watch()
                changes, problems = await loop.run_in_executor(thread, self._scan_all)
                while True:
                    self._report(problems)
                    yield changes
                    changes, problems = await loop.run_in_executor(thread, self._next)
            finally:
                self._stop.set()

    def _watch(self) -> None:
        """Starts to listen; to the new folder, if another one stands at its path. Nothing if there is none."""
        try:
            inode = self._folder.folder.stat().st_ino
            if inode != self._watched:
                self._notify = RustNotify([str(self._folder.folder)], False, False, 0, True, True)
                self._watched = inode
        except OSError:
            self._notify, self._watched = None, 0

    def _scan_all(self) -> tuple[Changes, list[Problem]]:
        return self._folder.scan(), self._folder.problems()

    def _next(self) -> tuple[Changes, list[Problem]]:
        """Waits for a notice, or until it is time to look at everything."""
        if self._notify is None:
            self._stop.wait(RESCAN_MS / 1000)
            notices: object = "timeout"
        else:
            notices = self._notify.watch(DEBOUNCE_MS, STEP_MS, RESCAN_MS, self._stop)
        paths = {Path(path) for _, path in notices} if isinstance(notices, set) else set()
        files = {path for path in paths if self._folder.is_manifest(path) and not path.is_dir()}
        if not files or any(not path.name.startswith(".") or path.name.startswith("..") for path in paths - files):
            self._watch()
            return self._scan_all()
        return self._folder.scan(files), self._folder.problems()

    def _report(self, problems: list[Problem]) -> None:
        for problem in problems:
            if problem not in self._problems:
                logger.error("%s", problem)
        if self._problems and not problems:
            logger.info("all manifests can be read again")
        self._problems = problems
