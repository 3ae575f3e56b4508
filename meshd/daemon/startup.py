"""The facts behind the events of the start-up: who was heard, and whether the kernel holds what follows from it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshd.daemon.program import Daemon

logger = logging.getLogger(__name__)


class Startup:
    """`observe` when something may have been reached; `reconciled` is called once."""

    def __init__(self, daemon: Daemon, reconciled: Callable[[], object]) -> None:
        self._daemon, self._reconciled = daemon, reconciled

    def observe(self) -> None:
        daemon = self._daemon
        if not daemon.readiness.missing:
            return
        now = time.monotonic()
        for event in daemon.readiness.observe(self._facts(), now):
            logger.info(event, extra={"instance": daemon.config.name, "seconds": f"{now - daemon.started:.3f}"})
            if event == "reconciled":
                self._reconciled()

    def is_in_sync(self) -> bool:
        """The kernel holds what follows from all that was heard."""
        daemon = self._daemon
        failing = any(reconciler.retries.failures for reconciler in daemon.targets)
        return not (daemon.store.dirty or daemon.rounds.has_more or failing)

    def _facts(self) -> dict[str, bool]:
        daemon = self._daemon
        local = daemon.store.synced(daemon.config.cluster, daemon.local.kinds)
        remotes = daemon.clustermesh is not None and all(
            daemon.store.synced(remote.cluster, remote.kinds) for remote in daemon.remotes()
        )
        settled = self.is_in_sync() and daemon.ways.settled and not daemon.rounds.asks_for_another()
        is_written = settled and daemon.mesh.restored and daemon.maps.in_sync_since is not None
        return {
            "loaded": True,
            "local-synced": local,
            "remotes-synced": local and remotes,
            "reconciled": local and remotes and is_written,
        }
