"""Drops by the other end's cluster, for the metrics: the kernel counts by reason only, and says who one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from datapath.ringbuf import PacketEvent
from meshd.daemon.parties import Parties
from meshd.daemon.verdicts import is_drop

if TYPE_CHECKING:
    from meshd.daemon.program import Daemon


class DropCount:
    """Of what was told; what was suppressed, or fell off before anybody asked, is in the counts by reason only."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon, self._parties = daemon, Parties(daemon)
        self._after = 0
        self._counts: Counter[tuple[str, str]] = Counter()

    def take(self) -> Iterator[tuple[str, str, int]]:
        """Cluster ("": none that is known), reason and how many, of the clusters that are there."""
        verdicts, present = self._daemon.verdicts, self._daemon.store.clusters
        while self._after < verdicts.told:
            found, self._after, _ = verdicts.since(self._after)
            for told in found:
                if is_drop(told.event):
                    self._counts[self._peer(told.event), told.event.reason.label] += told.count
        for cluster, reason in [key for key in self._counts if key[0] and key[0] not in present]:
            del self._counts[cluster, reason]
        for (cluster, reason), count in self._counts.items():
            yield cluster, reason, count

    def _peer(self, event: PacketEvent) -> str:
        """The cluster at the other end; ours if both ends are here."""
        ends = [self._parties.who(end)["cluster"] for end in (event.source, event.destination)]
        own = self._daemon.config.cluster
        return next((cluster for cluster in ends if cluster and cluster != own), own if own in ends else "")
