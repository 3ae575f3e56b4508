"""How long a remote waits between its tries. The rest of it is tested with real clusters (tests/integration)."""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from tenacity import AsyncRetrying, Future, RetryCallState

from meshd.daemon.link import Link, LinkState, PeerRejected, PeerUnavailable
from meshd.daemon.members import Members
from meshd.daemon.presence import HEARTBEAT_MAX_S
from meshd.daemon.remote import BACKOFF_MAX_S, BACKOFF_START_S, REJECTED_MAX_S, Remote, backoff_s
from meshd.daemon.remotefile import parse_remote_file
from meshd.daemon.store import Store
from meshd.daemon.timeline import Timeline
from meshd.daemon.watch import Changes
from wire.keys import Kind
from wire.records import Capabilities, ClusterConfig


def state(attempt: int, error: Exception) -> RetryCallState:
    made = RetryCallState(AsyncRetrying(), None, (), {})
    made.attempt_number = attempt
    made.outcome = Future.construct(attempt, error, has_exception=True)
    return made


def longest(attempt: int, error: Exception) -> float:
    return max(backoff_s(state(attempt, error)) for _ in range(300))


def test_waits_grow_are_capped_and_jittered() -> None:
    away = PeerUnavailable("away")
    assert longest(1, away) <= BACKOFF_START_S
    assert BACKOFF_START_S < longest(4, away) <= BACKOFF_START_S * 8
    assert BACKOFF_MAX_S / 2 < longest(50, away) <= BACKOFF_MAX_S
    assert min(backoff_s(state(50, away)) for _ in range(300)) < BACKOFF_MAX_S / 2


@pytest.mark.parametrize(("certain", "most"), [(True, REJECTED_MAX_S), (False, BACKOFF_MAX_S)])
def test_a_certain_rejection_waits_longer(certain: bool, most: float) -> None:
    assert most / 2 < longest(50, PeerRejected("no", certain=certain)) <= most


def test_a_links_age_is_that_of_its_state_not_of_the_reason() -> None:
    link = Link(since=1.0)
    assert link.become(LinkState.DISCONNECTED, now=2.0, reason="refused")
    assert link.become(LinkState.DISCONNECTED, now=3.0, reason="reset")
    assert not link.become(LinkState.DISCONNECTED, now=4.0, reason="reset")
    assert (link.since, link.reason) == (2.0, "reset")


def remote(folder: Path, *, kinds: Sequence[Kind] = (Kind.IP,), max_clusters: int = 255) -> Remote:
    text = "{endpoints: ['https://127.0.0.1:1'], trusted-ca-file: a, cert-file: b, key-file: c}"
    return Remote(
        parse_remote_file("c2", text, folder=folder),
        kinds=kinds,
        store=Store(lambda: None),
        members=Members("c1", 1, max_clusters=max_clusters),
        on_change=lambda: None,
        timeline=Timeline(),
    )


def test_a_heartbeat_counts_when_its_value_changes_whatever_it_says(tmp_path: Path) -> None:
    """Clause 11: clocks need not agree, and one that stands still is no sign of life."""
    made = remote(tmp_path)
    assert not made.is_beating()
    made.beat(b"1999-01-01T00:00:00Z")
    assert made.is_beating()
    made.link.heartbeat_at = time.monotonic() - HEARTBEAT_MAX_S - 1
    made.beat(b"1999-01-01T00:00:00Z")
    assert not made.is_beating()
    made.beat(b"2099-01-01T00:00:00Z")
    assert made.is_beating()


def test_a_link_that_is_ready_with_an_old_heartbeat_is_lost(tmp_path: Path) -> None:
    made = remote(tmp_path)
    made.beat(b"1")
    made.link.state = LinkState.READY
    made.presence.find()
    made.look(time.monotonic())
    assert made.presence.lost_at is None
    made.link.heartbeat_at = time.monotonic() - HEARTBEAT_MAX_S - 1
    made.look(time.monotonic())
    assert made.presence.lost_at is not None


def test_in_a_mesh_of_511_who_numbers_for_255_is_refused(tmp_path: Path) -> None:
    made = remote(tmp_path, max_clusters=511)
    with pytest.raises(PeerRejected, match="cluster-config of c2: it numbers identities for 255 clusters, we for 511"):
        made.accept(ClusterConfig(id=300))
    assert made.accept(ClusterConfig(id=300, capabilities=Capabilities(max_connected_clusters=511)))


async def test_who_exports_endpoint_slices_only_is_heard_without_services(tmp_path: Path) -> None:
    """As by a reader of Cilium's that knows none: those it had said go, nobody waits for more, status says it."""
    made = remote(tmp_path, kinds=[Kind.IP, Kind.SERVICE])
    assert set(made.accept(ClusterConfig(id=2))) == {Kind.IP, Kind.SERVICE}
    said = {"ns/a": b'{"cluster":"c2","clusterID":2,"namespace":"ns","name":"a"}'}
    made.apply(Kind.SERVICE, Changes(said), 5)
    slices = ClusterConfig(id=2, capabilities=Capabilities(endpoint_slices_export_mode="endpointslices-only"))
    assert set(made.accept(slices)) == {Kind.IP}
    made.listed(Kind.IP)
    assert (made.link.state, made.slices_only, made.waiting_deletes) == (LinkState.READY, True, 1)
    made.confirm(made.held(), "")
    assert not made._store.records("c2", Kind.SERVICE)
    assert set(made.accept(ClusterConfig(id=2))) == {Kind.IP, Kind.SERVICE}
    made.apply(Kind.SERVICE, Changes(said), 7)
    assert (made.slices_only, set(made._store.records("c2", Kind.SERVICE))) == (False, {"ns/a"})


def test_a_delete_waits_and_a_put_overtakes_it(tmp_path: Path) -> None:
    made = remote(tmp_path)
    made.accept(ClusterConfig(id=2))
    made.apply(Kind.IP, Changes({"20.0.0.1": b"{}"}, {"20.0.0.2", "20.0.0.3"}), 5)
    held = made.held()
    assert made.waiting_deletes == 2
    made.apply(Kind.IP, Changes({"20.0.0.2": b"{}"}), 6)
    made.confirm(held, "missing: cilium/.heartbeat")
    assert (made.waiting_deletes, made.presence.lost_at is not None) == (1, True)
    made.confirm(held, "")
    assert made.waiting_deletes == 0
