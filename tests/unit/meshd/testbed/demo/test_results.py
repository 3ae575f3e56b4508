import json
from typing import Any

from meshd.testbed.demo.results import parse, shares


def line(pod: str | None, at: float = 1.0, **more: Any) -> bytes:
    return json.dumps({"at": at, "seconds": 0.1, "pod": pod, "error": None, **more}).encode()


LOAD = parse(
    [
        line("cluster1/a", peer="10.0.1.1"),
        line("cluster2/b", at=2.0, peer="10.0.1.1"),
        line(None, at=3.0, error="refused"),
        line("cluster2/b", hold=0, echoes=7),
    ]
)


def test_answers_are_counted_by_pod_cluster_and_peer() -> None:
    assert dict(LOAD.by_pod) == {"cluster1/a": 1, "cluster2/b": 1}
    assert dict(LOAD.by_cluster) == {"cluster1": 1, "cluster2": 1}
    assert dict(LOAD.peers) == {"10.0.1.1": 2}


def test_failures_and_long_connections_are_told_apart() -> None:
    assert [request.error for request in LOAD.failures] == ["refused"]
    assert [held.echoes for held in LOAD.held] == [7]
    assert len(LOAD.requests) == 3


def test_later_requests() -> None:
    later = LOAD.begun_after(1.0)
    assert dict(later.by_cluster) == {"cluster2": 1}
    assert len(later.failures) == 1


def test_shares_of_nobody() -> None:
    assert shares(LOAD.by_pod) == "cluster1/a 50 %, cluster2/b 50 %"
    assert shares(parse([]).by_pod) == "nobody"
