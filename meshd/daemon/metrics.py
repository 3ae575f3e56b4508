"""The daemon's metrics and readiness: read from its parts when somebody asks. A cluster that left has no series."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from datapath.layout import MAPS
from meshd.daemon.dropcount import DropCount
from meshd.daemon.link import LinkState
from meshd.daemon.presence import PresenceState
from meshd.daemon.prober import NO_EVIDENCE
from meshd.daemon.store import OVER_QUOTA, ClusterState

if TYPE_CHECKING:
    from meshd.daemon.program import Daemon
    from meshd.daemon.remote import Remote

PREFIX = "meshd_daemon_"
BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


def readiness(daemon: Daemon) -> tuple[bool, str]:
    """Ready once all events of the start-up were reached; names those that are missing."""
    missing = daemon.readiness.missing
    return (False, "not ready: missing " + ", ".join(missing)) if missing else (True, "ready")


class Metrics(Collector):
    """Everything under `meshd_daemon_`."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._drop_count = DropCount(daemon)

    def collect(self) -> Iterator[Metric]:
        yield from self._remotes(time.monotonic())
        yield from self._presence(time.monotonic())
        yield from self._records()
        yield from self._targets()

    def _remotes(self, now: float) -> Iterator[Metric]:
        remotes = [self._daemon.local, *self._daemon.remotes()]

        def gauge(name: str, text: str, value: Callable[[Remote], float | None]) -> Metric:
            family = GaugeMetricFamily(PREFIX + name, text, labels=["cluster"])
            for remote in remotes:
                if (found := value(remote)) is not None:
                    family.add_metric([remote.cluster], found)
            return family

        def age(remote: Remote) -> float | None:
            last = self._state(remote.cluster).last_event_at
            return None if last is None else now - last

        yield gauge(
            "remote_ready", "1 if connected and all lists are complete.", lambda r: r.link.state is LinkState.READY
        )
        yield gauge(
            "remote_state_seconds", "Since when the control link is in its state.", lambda r: now - r.link.since
        )
        yield gauge("remote_last_event_seconds", "Since the last record of the cluster arrived.", age)
        yield gauge("remote_sync_seconds", "How long the lists took, from connecting on.", lambda r: r.link.sync_s)
        yield gauge("remote_certificate_days", "Until our certificate ends.", lambda r: r.link.days_left())
        yield gauge(
            "remote_server_certificate_days",
            "Until the certificate ends that the cluster showed.",
            lambda r: r.link.server.days_left() if r.link.server else None,
        )
        connects = CounterMetricFamily(PREFIX + "remote_connects", "Connections tried.", labels=["cluster"])
        lists = CounterMetricFamily(PREFIX + "remote_lists", "Lists begun, by cause.", labels=["cluster", "reason"])
        for remote in remotes:
            connects.add_metric([remote.cluster], remote.connects)
            for reason, count in remote.relists.items():
                lists.add_metric([remote.cluster, reason], count)
        yield from (connects, lists)

    def _presence(self, now: float) -> Iterator[Metric]:
        presence = GaugeMetricFamily(
            PREFIX + "remote_presence", "1 for the state that the cluster is in.", labels=["cluster", "state"]
        )
        withdrawn = CounterMetricFamily(
            PREFIX + "remote_withdrawals", "How often it was withdrawn, by cause.", labels=["cluster", "reason"]
        )
        lost = GaugeMetricFamily(PREFIX + "remote_lost_seconds", "Since nothing is heard.", labels=["cluster"])
        held = GaugeMetricFamily(PREFIX + "remote_waiting_deletes", "Deletes not believed.", labels=["cluster"])
        rtt = GaugeMetricFamily(PREFIX + "datapath_rtt_seconds", "Median of the last probes.", labels=["cluster"])
        loss = GaugeMetricFamily(PREFIX + "datapath_loss", "Share of the last probes.", labels=["cluster"])
        for remote in self._daemon.remotes():
            evidence = self._daemon.prober.evidence(remote.cluster) if self._daemon.prober else NO_EVIDENCE
            for state in PresenceState:
                presence.add_metric([remote.cluster, state], remote.presence.state is state)
            for reason, count in remote.presence.withdrawals.items():
                withdrawn.add_metric([remote.cluster, reason], count)
            lost.add_metric([remote.cluster], remote.presence.age_s(now) or 0.0)
            held.add_metric([remote.cluster], remote.waiting_deletes)
            if evidence.rtt_s is not None:
                rtt.add_metric([remote.cluster], evidence.rtt_s)
            if evidence.loss is not None:
                loss.add_metric([remote.cluster], evidence.loss)
        yield from (presence, withdrawn, lost, held, rtt, loss)

    def _records(self) -> Iterator[Metric]:
        accepted = GaugeMetricFamily(PREFIX + "records", "Records that are believed.", labels=["cluster", "kind"])
        rejected = GaugeMetricFamily(
            PREFIX + "rejected_records", "Records that are not believed.", labels=["cluster", "kind", "reason"]
        )
        for state in self._daemon.store.clusters.values():
            for kind, shelf in state.shelves.items():
                accepted.add_metric([state.name, kind], len(shelf.records))
        for labels, count in self._rejected().items():
            rejected.add_metric(labels, count)
        yield from (accepted, rejected)

    def _rejected(self) -> Counter[tuple[str, str, str]]:
        """How many are not believed, by cluster, kind and reason; of those over quota how many at least."""
        found: Counter[tuple[str, str, str]] = Counter()
        for state in self._daemon.store.clusters.values():
            for kind, shelf in state.shelves.items():
                found.update({(state.name, kind, reason): count for reason, count in shelf.reasons().items()})
        quarantine = self._daemon.mesh.suspicion.quarantine
        for cluster, kind in quarantine.kinds():
            found.update({(cluster, kind, r): count for r, count in quarantine.reasons(cluster, kind).items()})
        for remote in self._daemon.remotes():
            found.update({(remote.cluster, kind, OVER_QUOTA): count for kind, count in remote.beyond.items()})
        return found

    def _targets(self) -> Iterator[Metric]:
        entries = GaugeMetricFamily(PREFIX + "entries", "Entries that the kernel holds.", labels=["map"])
        pressure = GaugeMetricFamily(PREFIX + "map_pressure", "Entries per room of the map, 0 to 1.", labels=["map"])
        failing = GaugeMetricFamily(PREFIX + "failing_keys", "Keys that could not be written.", labels=["target"])
        writes = CounterMetricFamily(PREFIX + "writes", "Entries written or removed.", labels=["target", "operation"])
        errors = CounterMetricFamily(
            PREFIX + "write_errors", "How often an entry could not be changed, tried or withheld.", labels=["map"]
        )
        for reconciler in self._daemon.targets:
            failing.add_metric([reconciler.name], len(reconciler.retries.failures))
            writes.add_metric([reconciler.name, "upsert"], reconciler.upserts)
            writes.add_metric([reconciler.name, "delete"], reconciler.deletes)
            for name, count in reconciler.errors.items():
                errors.add_metric([name], count)
            for name, held in reconciler.delta.realised.items():
                entries.add_metric([name], len(held))
                if name in MAPS:
                    room = self._daemon.config.map_sizes.get(name, MAPS[name].size)
                    pressure.add_metric([name], len(held) / room)
        drops = CounterMetricFamily(PREFIX + "drops", "Packets and connections dropped.", labels=["reason"])
        for reason, count in self._daemon.drops().items():
            drops.add_metric([reason.label], count)
        told = CounterMetricFamily(
            PREFIX + "told_drops",
            "Drops that the kernel told one by one (at least), by the other end's cluster.",
            labels=["cluster", "reason"],
        )
        for cluster, label, count in self._drop_count.take():
            told.add_metric([cluster, label], count)
        yield from (entries, pressure, failing, writes, errors, drops, told)

    def _state(self, cluster: str) -> ClusterState:
        return self._daemon.store.clusters.get(cluster) or ClusterState(cluster)
