"""The life of a connection, against an etcd that can be told to misbehave."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from meshd.daemon import connection
from meshd.daemon.connection import Connection, Held
from meshd.daemon.etcd import WatchStream
from meshd.daemon.link import PeerRejected, PeerUnavailable
from meshd.daemon.watch import Changes, WatchFrom, WatchMachine, Why
from tests.support import records
from tests.support.fake_etcd import FakeEtcd
from wire.keys import HEARTBEAT, Kind, Layout, canary, cluster_config, record
from wire.records import ClusterConfig

IPS = b"cilium/state/ip/v1/default/"
KINDS = (Kind.IP, Kind.NODE)


@dataclass
class Ear:
    """A sink that keeps names and values."""

    content: dict[tuple[Kind, str], bytes] = field(default_factory=dict)
    portions: list[int] = field(default_factory=list)
    """How many values came at once."""
    listed_kinds: list[Kind] = field(default_factory=list)
    beats: int = 0
    turns: int = 0
    beating: bool = True
    missing: str = "?"
    deleted: defaultdict[Kind, set[str]] = field(default_factory=lambda: defaultdict(set))
    machines: dict[Kind, WatchMachine] = field(default_factory=lambda: {k: WatchMachine(b"", b"") for k in KINDS})
    config: ClusterConfig | None = None

    def accept(self, config: ClusterConfig) -> Mapping[Kind, WatchMachine]:
        self.config = config
        return self.machines

    def apply(self, kind: Kind, changes: Changes, revision: int) -> None:
        self.portions.append(len(changes.puts))
        self.content.update({(kind, name): value for name, value in changes.puts.items()})
        self.deleted[kind] -= changes.puts.keys()
        self.deleted[kind] |= changes.deletes

    def listed(self, kind: Kind) -> None:
        self.listed_kinds.append(kind)

    def beat(self, value: bytes) -> None:
        self.beats += 1

    async def turn(self) -> None:
        self.turns += 1

    def held(self) -> Held:
        return {kind: frozenset(names) for kind, names in self.deleted.items()}

    def confirm(self, held: Held, missing: str) -> None:
        self.missing = missing
        if not missing:
            for kind, names in held.items():
                self.deleted[kind] -= names
                for name in names:
                    self.content.pop((kind, name), None)

    def is_beating(self) -> bool:
        return self.beating

    def names(self) -> list[str]:
        return sorted(name for kind, name in self.content if kind is Kind.IP)


@pytest.fixture
def etcd() -> FakeEtcd:
    made = FakeEtcd()
    made.put_all(records.cluster("cluster2", 2))
    for host in range(5):
        made.put(record(Kind.IP, "cluster2", f"20.0.0.{host}"), "x")
    return made


@asynccontextmanager
async def connected(etcd: FakeEtcd, ear: Ear) -> AsyncIterator["asyncio.Task[None]"]:
    """A connection's task, ended with the block."""
    async with etcd.serving() as channel:
        task = asyncio.create_task(Connection(channel, "cluster2", ear).run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def until(fact: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not fact():  # noqa: ASYNC110 — the facts are no events
            await asyncio.sleep(0.005)


ALL = [f"20.0.0.{host}" for host in range(5)]


async def test_it_lists_in_pinned_pages_and_then_watches(etcd: FakeEtcd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.PAGE, Kind.IP, 2)
    ear = Ear()
    async with connected(etcd, ear):
        await until(lambda: len(ear.listed_kinds) == 2 and etcd.watched(IPS))
        assert ear.names() == ALL
        pages = [request for request in etcd.asked if request.key.startswith(IPS)]
        assert [page.revision for page in pages] == [0, etcd.revision, etcd.revision]
        assert pages[1].key == IPS + b"20.0.0.1\0"
        etcd.delete(record(Kind.IP, "cluster2", "20.0.0.0"))
        etcd.put(HEARTBEAT, "later")
        await until(lambda: ear.names() == ALL[1:] and ear.beats == 2)


async def test_a_long_answer_is_taken_in_portions_so_that_others_get_their_turn(etcd: FakeEtcd) -> None:
    ear = Ear()
    async with connected(etcd, ear):
        await until(lambda: len(ear.listed_kinds) == 2 and etcd.watched(IPS))
        many = [f"20.0.{number // 250}.{number % 250}" for number in range(2 * connection.BRIEF + 1)]
        etcd.put_at_once({record(Kind.IP, "cluster2", name): "y" for name in many})
        await until(lambda: set(many) <= set(ear.names()))
        assert ear.portions[-3:] == [connection.BRIEF, connection.BRIEF, 1]


async def test_a_list_whose_revision_was_compacted_begins_again(
    etcd: FakeEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection.PAGE, Kind.IP, 2)
    compacted = iter([True])

    def refuse(request: object) -> tuple[grpc.StatusCode, str] | None:
        if getattr(request, "revision", 0) and next(compacted, False):
            return grpc.StatusCode.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted"
        return None

    etcd.refuse = refuse
    ear = Ear()
    async with connected(etcd, ear):
        await until(lambda: len(ear.listed_kinds) == 2)
        assert ear.names() == ALL


async def test_a_compacted_watch_is_listed_anew_and_what_is_gone_is_swept(etcd: FakeEtcd) -> None:
    ear = Ear()
    async with connected(etcd, ear):
        await until(lambda: etcd.watched(IPS))
        etcd.content.pop(IPS + b"20.0.0.3")  # the watch did not hear of it
        etcd.compact_watches(IPS)
        await until(lambda: ear.names() == ["20.0.0.0", "20.0.0.1", "20.0.0.2", "20.0.0.4"])
        await until(lambda: etcd.watched(IPS))
        etcd.put(record(Kind.IP, "cluster2", "20.0.0.9"), "x")
        await until(lambda: "20.0.0.9" in ear.names())
    assert ear.machines[Kind.IP].relists == {Why.CONNECTED: 1, Why.COMPACTED: 1}
    etcd.cluster_id += 1
    async with connected(etcd, ear):
        await until(lambda: etcd.watched(IPS))
    assert ear.machines[Kind.IP].relists == {Why.CONNECTED: 1, Why.COMPACTED: 1, Why.OTHER_ETCD: 1}


@pytest.mark.parametrize("sign", [HEARTBEAT, cluster_config("cluster2"), canary(Kind.NODE, "cluster2")])
async def test_deletes_are_not_believed_while_a_sign_of_life_is_missing(
    etcd: FakeEtcd, sign: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when an agent is dead for longer than its lease: etcd deletes, nobody else does."""
    monkeypatch.setattr(connection, "CONFIRM_AGAIN_S", 0.05)
    ear = Ear()
    async with connected(etcd, ear):
        await until(lambda: etcd.watched(IPS) and ear.missing == "")
        value = etcd.content[sign.encode()].value.decode()
        etcd.delete(sign)
        etcd.delete(record(Kind.IP, "cluster2", "20.0.0.3"))
        await until(lambda: ear.deleted[Kind.IP] and ear.missing == f"missing: {sign}")
        assert ear.names() == ALL
        etcd.put(sign, value)
        await until(lambda: ear.names() == ["20.0.0.0", "20.0.0.1", "20.0.0.2", "20.0.0.4"])


async def test_to_believe_a_delete_takes_three_questions(etcd: FakeEtcd) -> None:
    """Heartbeat, configuration, and all canaries at once: every node asks them of the proxy."""
    ear = Ear()
    async with connected(etcd, ear):
        await until(lambda: etcd.watched(IPS) and ear.missing == "")
        etcd.asked.clear()
        etcd.delete(record(Kind.IP, "cluster2", "20.0.0.3"))
        await until(lambda: len(ear.names()) == 4)
        asked = {request.key.decode() for request in etcd.asked}
        assert asked == {HEARTBEAT, cluster_config("cluster2"), "cilium/synced/cluster2/"}


async def test_deletes_are_not_believed_while_the_heartbeat_stands_still(
    etcd: FakeEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONFIRM_AGAIN_S", 0.05)
    ear = Ear(beating=False)
    async with connected(etcd, ear):
        await until(lambda: etcd.watched(IPS))
        etcd.delete(record(Kind.IP, "cluster2", "20.0.0.3"))
        await until(lambda: ear.deleted[Kind.IP] and ear.missing == "the heartbeat stands still")
        assert ear.names() == ALL
        ear.beating = True
        await until(lambda: len(ear.names()) == 4)


async def test_a_page_that_exceeds_a_message_is_asked_for_in_parts(etcd: FakeEtcd) -> None:
    def refuse(request: Any) -> tuple[grpc.StatusCode, str] | None:
        if request.limit > 100 and request.key.startswith(IPS):
            return grpc.StatusCode.RESOURCE_EXHAUSTED, "CLIENT: Received message larger than max (5 vs. 4)"
        return None

    etcd.refuse = refuse
    ear = Ear()
    async with connected(etcd, ear):
        await until(lambda: Kind.IP in ear.listed_kinds)
        assert ear.names() == ALL


async def test_names_over_the_quota_are_left_out_until_there_is_room(etcd: FakeEtcd) -> None:
    ear = Ear()
    ear.machines[Kind.IP] = WatchMachine(b"", b"", limit=3)
    async with connected(etcd, ear) as task:
        await until(lambda: etcd.watched(IPS))
        assert ear.names() == ALL[:3]
        assert ear.machines[Kind.IP].beyond == 2
        etcd.delete(record(Kind.IP, "cluster2", "20.0.0.0"))
        found = await ended(task)
        assert "there is room again" in str(found)
    async with connected(etcd, ear):
        await until(lambda: ear.names() == ALL[1:4])


async def test_a_kind_waits_for_its_canary(etcd: FakeEtcd) -> None:
    etcd.delete(canary(Kind.IP, "cluster2"))
    ear = Ear()
    async with connected(etcd, ear):
        await until(lambda: ear.listed_kinds == [Kind.NODE])
        assert ear.names() == []
        etcd.put(canary(Kind.IP, "cluster2"), "now")
        await until(lambda: ear.names() == ALL)


async def test_without_canaries_all_start_at_once(etcd: FakeEtcd) -> None:
    etcd.delete(canary(Kind.IP, "cluster2"))
    etcd.put(cluster_config("cluster2"), '{"id":2}')
    ear = Ear()
    async with connected(etcd, ear):
        await until(lambda: len(ear.listed_kinds) == 2)


async def test_a_cluster_behind_a_cache_is_read_there(etcd: FakeEtcd) -> None:
    etcd.put(cluster_config("cluster2"), '{"id":2,"capabilities":{"cached":true}}')
    etcd.put(record(Kind.IP, "cluster2", "20.0.0.9", Layout.CACHE), "x")
    ear = Ear()
    async with connected(etcd, ear):
        await until(lambda: ear.names() == ["20.0.0.9"])


async def ended(task: "asyncio.Task[None]") -> BaseException | None:
    async with asyncio.timeout(20):
        await asyncio.wait([task])
    return task.exception()


async def test_a_cut_stream_ends_the_connection(etcd: FakeEtcd) -> None:
    ear = Ear()
    async with connected(etcd, ear) as task:
        await until(lambda: etcd.watched(IPS))
        etcd.cut()
        assert isinstance(await ended(task), PeerUnavailable)
        assert ear.names() == ALL


async def test_a_stream_that_is_over_takes_no_watch_and_that_is_no_bug(etcd: FakeEtcd) -> None:
    """As when the last page of a list arrives after the stream was cut."""
    async with etcd.serving() as channel:
        stream: WatchStream[str] = WatchStream(channel)
        await stream.create(WatchFrom(IPS, b"", 1), "one")
        etcd.cut()
        assert [owner async for owner, _ in stream.answers()] == []
        with pytest.raises(PeerUnavailable, match="the watch stream ended"):
            await stream.create(WatchFrom(IPS, b"", 1), "other")


class EarThatFails(Ear):
    """It is told to end at the very moment when something fails."""

    task: "asyncio.Task[None] | None" = None

    def confirm(self, held: Held, missing: str) -> None:
        assert self.task is not None
        self.task.cancel()
        raise PeerUnavailable("what failed")


async def test_to_be_told_to_end_goes_before_a_failure_at_the_same_moment(etcd: FakeEtcd) -> None:
    ear = EarThatFails()
    async with connected(etcd, ear) as task:
        ear.task = task
        await asyncio.wait([task], timeout=20)
        assert task.cancelled()


@pytest.mark.parametrize(
    ("config", "error", "says"),
    [
        (None, PeerUnavailable, "is not there"),
        ("?", PeerRejected, "not-json"),
    ],
)
async def test_a_config_that_will_not_do_ends_it(
    etcd: FakeEtcd, config: str | None, error: type[Exception], says: str
) -> None:
    etcd.delete(cluster_config("cluster2"))
    if config:
        etcd.put(cluster_config("cluster2"), config)
    async with connected(etcd, Ear()) as task:
        found = await ended(task)
        assert isinstance(found, error)
        assert says in str(found)


async def test_a_config_that_changes_ends_it_and_an_equal_one_does_not(etcd: FakeEtcd) -> None:
    config = etcd.content[cluster_config("cluster2").encode()].value.decode()
    async with connected(etcd, Ear()) as task:
        await until(lambda: etcd.watched(cluster_config("cluster2").encode()))
        etcd.put(cluster_config("cluster2"), config)
        etcd.put(cluster_config("cluster2"), '{"id":3}')
        found = await ended(task)
        assert isinstance(found, PeerUnavailable)
        assert "cluster-config changed" in str(found)


async def test_a_refusal_is_a_rejection(etcd: FakeEtcd) -> None:
    denied = grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied"
    etcd.refuse = lambda request: denied if request.key.startswith(IPS) else None
    async with connected(etcd, Ear()) as task:
        found = await ended(task)
        assert isinstance(found, PeerRejected)
        assert str(found) == "permission denied: etcdserver: permission denied"
