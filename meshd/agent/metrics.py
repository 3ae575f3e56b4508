"""The agent's metrics and readiness: read from its parts when somebody asks."""

import time
from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from meshd.agent.agent import Agent
from meshd.agent.report import degraded, seconds


def readiness(agent: Agent) -> tuple[bool, str]:
    """Ready: everything was published, or it stands by with everything read. Etcd away later does not change that."""
    state = agent.etcd_state
    if not agent.desired.synced:
        return False, "not ready: the source has not told everything yet"
    if state.phase == "standby":
        return True, "ready: standing by"
    if agent.progress.announced.is_set():
        return True, f"ready: etcd away ({state.error})" if state.error else "ready: leading"
    return False, f"not ready: {state.phase}" + (f" ({state.error})" if state.error else "")


class Metrics(Collector):
    """Everything under `meshd_agent_`."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def collect(self) -> Iterator[Metric]:
        yield from self._source()
        yield from self._etcd()
        yield from self._published()

    def _source(self) -> Iterator[Metric]:
        agent = self._agent
        yield _by_kind("objects", "Objects that are known.", agent.state.count())
        yield _gauge("synced", "1 if the source has told of everything.", agent.desired.synced)
        yield _gauge(
            "source_problems",
            "Kinds that cannot be heard, objects, files and documents that cannot be used.",
            len(agent.source.problems),
        )
        yield _gauge("degraded", "Objects published with a part left out, or not at all.", len(degraded(agent)))

    def _etcd(self) -> Iterator[Metric]:
        state = self._agent.etcd_state
        yield _gauge("leader", "1 if this agent writes.", state.phase == "writing")
        yield _gauge("phase_seconds", "Since when it has been so with etcd.", time.monotonic() - state.since)
        yield _gauge("revision", "Last revision seen.", self._agent.etcd.revision)

    def _published(self) -> Iterator[Metric]:
        progress, desired = self._agent.progress, self._agent.desired
        yield _by_kind("keys", "Keys of ours that etcd holds.", desired.ledger.count())
        yield _gauge("pending", "Keys that differ from what is wanted.", desired.ledger.pending)
        yield _gauge("refused", "Records that etcd does not take.", len(progress.refused))
        yield _counter(
            "foreign_changes", "Keys of ours that others have changed, and that were put right.", progress.foreign
        )
        yield _gauge("rival", "1 if another cluster is published in this etcd.", bool(progress.rival))
        yield _gauge("lag_seconds", "From the last change to its confirmation by etcd.", progress.lag_s)
        family = CounterMetricFamily("meshd_agent_seconds", "Spent on each part of the work.", labels=["part"])
        for part, spent in seconds(self._agent).items():
            family.add_metric([part], spent)
        yield family
        yield _counter("transactions", "Transactions of records.", progress.transactions)
        yield _counter("writes", "Records put or deleted.", progress.keys)
        yield _gauge("identities", "Numbers that are taken.", len(desired.identities))
        yield _gauge("identities_unused", "Numbers that no pod uses.", len(desired.publisher.unused()))
        if (importer := self._agent.importer) is not None:
            yield _gauge("imported_slices", "EndpointSlices of other clusters' backends.", len(importer.plan.slices))
            yield _gauge("import_problems", "Services whose slices cannot be written.", len(importer.problems))
        yield _gauge("identities_capacity", "Numbers that there are.", desired.identities.capacity)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"meshd_agent_{name}", text, value=float(value))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"meshd_agent_{name}", text, value=float(value))


def _by_kind(name: str, text: str, counts: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(f"meshd_agent_{name}", text, labels=["kind"])
    for kind, count in counts.items():
        family.add_metric([kind], count)
    return family
