"""The proxy's metrics: read from its parts when somebody asks, so that counting costs the hot path nothing."""

from collections.abc import Iterator
from datetime import UTC, datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from etcdproxy.peers import Peer
from etcdproxy.report import Parts, tls_problem
from etcdproxy.upstream import State


class Metrics(Collector):
    """Everything under `meshd_proxy_`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        yield from self._store()
        yield from self._upstream()
        yield from self._readers()

    def _store(self) -> Iterator[Metric]:
        history = self._parts.hub.history
        yield _gauge("keys", "Keys that are served.", len(history))
        yield _gauge("revision", "Last revision applied completely.", history.revision)
        yield _gauge("history_base_revision", "Oldest revision that can still be read.", history.base)
        yield _gauge("history_events", "Events kept for watches and pinned reads.", history.kept_events)
        yield _gauge("history_bytes", "Bytes of the events kept.", history.kept_bytes)

    def _upstream(self) -> Iterator[Metric]:
        status = self._parts.upstream.status
        yield _gauge("upstream_synced", "1 if etcd is followed.", status.state is State.SYNCED)
        yield _counter("upstream_lists", "Lists of the whole etcd.", status.lists)
        yield _counter("upstream_resumes", "Watches continued after etcd was away.", status.resumes)
        yield _gauge("certificate_seconds_left", "Until the server certificate ends.", self._seconds_left())
        problem = bool(tls_problem(self._parts.live))
        yield _gauge("certificate_problem", "1 if changed files cannot be used, or readers will refuse them.", problem)

    def _readers(self) -> Iterator[Metric]:
        peers = self._parts.service.peers
        yield _gauge("watchers", "Open watches.", peers.watches)
        yield _gauge("queued_bytes", "Answers to Ranges that were not sent yet.", peers.queued)
        answers, sent = self._parts.service.answers()
        yield _counter("watch_answers", "Messages sent to watches.", answers)
        yield _counter("watch_answer_bytes", "Bytes sent to watches.", sent)
        refused = CounterMetricFamily("meshd_proxy_refused", "Requests refused.", labels=["reason"])
        for reason, count in peers.refused.items():
            refused.add_metric([reason], count)
        yield refused
        failed = CounterMetricFamily("meshd_proxy_handshakes_failed", "Readers not let in.", labels=["reason"])
        for reason, count in peers.handshakes_failed.items():
            failed.add_metric([reason], count)
        yield failed
        connections = GaugeMetricFamily("meshd_proxy_connections", "Open connections.", labels=["peer"])
        streams = GaugeMetricFamily("meshd_proxy_streams", "Open streams.", labels=["peer"])
        ranges = CounterMetricFamily("meshd_proxy_ranges", "Range requests answered.", labels=["peer"])
        peer: Peer
        for peer in peers.all():
            connections.add_metric([peer.name], peer.connections)
            streams.add_metric([peer.name], peer.streams)
            ranges.add_metric([peer.name], peer.ranges)
        yield connections
        yield streams
        yield ranges

    def _seconds_left(self) -> float:
        return (self._parts.live.pair.leaf.not_valid_after_utc - datetime.now(UTC)).total_seconds()


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"meshd_proxy_{name}", text, value=float(value))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"meshd_proxy_{name}", text, value=float(value))
