"""The proxy beside the etcd it serves: equal answers to equal questions, at the same revision."""

import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.support.etcd import Etcd
from tests.support.proxy import Proxy, Reader, reader
from wire.proto import kv_pb2, rpc_pb2

pytestmark = pytest.mark.etcd

_PARTS = [b"state/", b"state0", b"state/ip/", b"state/nodes/", b"synced/", b"cluster-config/c1", b".heartbeat"]
_SEEDS = range(4)
_QUESTIONS = 500  # for each seed, so 2 000 in all
_WATCHES = 100


@pytest.fixture
def proxy(idle_proxy: Proxy) -> Proxy:
    return idle_proxy


def await_revision(proxy: Proxy, revision: int) -> None:
    proxy.await_status(lambda status: bool(status["revision"] == revision))


def random_key(chance: random.Random) -> bytes:
    return b"cilium/" + chance.choice(_PARTS) + (b"%d" % chance.randrange(20) if chance.random() < 0.8 else b"")


def write_at_random(chance: random.Random, etcd: Etcd, count: int) -> int:
    """Puts, deletes, transactions and leased keys; returns the revision after them."""
    lease = int(etcd.etcdctl("lease", "grant", "600").split()[1], 16)
    revision = 0
    for _ in range(count):
        key = random_key(chance)
        action = chance.random()
        if action < 0.5:
            revision = etcd.put(key, b"v%d" % chance.randrange(1000), lease=chance.choice([0, lease]))
        elif action < 0.7:
            revision = etcd.delete(key, chance.choice([b"", key + b"9"]))
        elif action < 0.8:
            revision = etcd.put(b"registry/out-of-range", b"")
        else:
            keys = {random_key(chance).decode(): "t" for _ in range(5)}
            revision = etcd.put_all(keys)
    return max(revision, etcd.put("cilium/.heartbeat", "now"))


def random_question(chance: random.Random, revision: int) -> rpc_pb2.RangeRequest:
    key = random_key(chance)
    ends = [b"", random_key(chance), random_key(chance), b"meshd0", b"cilium0"]
    request = rpc_pb2.RangeRequest(
        key=chance.choice([key, key, b"cilium/"]),
        range_end=chance.choice(ends),
        limit=chance.choice([0, 0, 1, 2, 5, 1000]),
        revision=revision,
        serializable=chance.random() < 0.3,
        keys_only=chance.random() < 0.3,
        count_only=chance.random() < 0.1,
    )
    if chance.random() < 0.2:
        order: Any = chance.choice(rpc_pb2.RangeRequest.SortOrder.values())
        target: Any = chance.choice(rpc_pb2.RangeRequest.SortTarget.values())
        request.sort_order, request.sort_target = order, target
    if chance.random() < 0.1:
        request.min_mod_revision = chance.randrange(revision)
        request.max_create_revision = chance.choice([0, revision // 2])
    return request


def assert_equal_answers(request: rpc_pb2.RangeRequest, ours: Any, theirs: Any) -> None:
    assert list(ours.kvs) == list(theirs.kvs) or sorted_by_ties(request, ours, theirs), request
    assert (ours.more, ours.count) == (theirs.more, theirs.count), request


def sorted_by_ties(request: rpc_pb2.RangeRequest, ours: Any, theirs: Any) -> bool:
    """etcd's sort is not stable: keys that are equal in what is sorted by may stand in any order, or be cut off."""
    if request.sort_target == rpc_pb2.RangeRequest.KEY:
        return False
    name = {1: "version", 2: "create_revision", 3: "mod_revision", 4: "value"}[request.sort_target]
    if request.keys_only and name == "value":
        return len(ours.kvs) == len(theirs.kvs)
    return [getattr(kv, name) for kv in ours.kvs] == [getattr(kv, name) for kv in theirs.kvs]


@pytest.mark.parametrize("seed", _SEEDS)
async def test_range_answers_equal_etcds(seed: int, etcd: Etcd, proxy: Proxy) -> None:
    chance = random.Random(seed)
    write_at_random(chance, etcd, 60)
    proxy.start()
    revision = write_at_random(chance, etcd, 60)
    await_revision(proxy, revision)
    async with reader(proxy, proxy.certificate("admin-c1")) as reading:
        for _ in range(_QUESTIONS):
            at = revision if chance.random() < 0.5 else chance.randint(revision - 40, revision)
            request = random_question(chance, at)
            ours, theirs = await ask(reading, request), etcd.kv.Range(request)
            assert_equal_answers(request, ours, theirs)
            assert ours.header.revision == revision
            assert (ours.header.raft_term, ours.header.member_id) == (theirs.header.raft_term, theirs.header.member_id)
            assert ours.header.cluster_id not in (0, theirs.header.cluster_id)  # derived: test_proxy_faults.py


async def ask(reading: Reader, request: rpc_pb2.RangeRequest) -> rpc_pb2.RangeResponse:
    options = {field.name: value for field, value in request.ListFields() if field.name not in ("key", "range_end")}
    return await reading.range(request.key, request.range_end, **options)


@pytest.mark.parametrize("seed", _SEEDS)
async def test_watch_events_equal_etcds(seed: int, etcd: Etcd, proxy: Proxy) -> None:
    chance = random.Random(seed)
    proxy.start()
    revision = write_at_random(chance, etcd, 120)
    plain = grpc.aio.insecure_channel(etcd.address)
    async with plain, Reader(plain).watch(b"cilium/", b"meshd0", start_revision=2, prev_kv=True) as watch:
        answers = await watch.read_until(revision)
    history = [event for answer in answers for event in answer.events]
    await_revision(proxy, revision)
    async with reader(proxy, proxy.certificate("admin-c1")) as reading:
        for _ in range(_WATCHES):
            key, end = chance.choice([(b"cilium/", b"cilium0"), (random_key(chance), b""), (random_key(chance), b"\0")])
            options: dict[str, Any] = {
                "start_revision": chance.randint(2, revision + 1),
                "prev_kv": chance.random() < 0.5,
                "fragment": chance.random() < 0.5,
                "filters": chance.choice([[], [], [0], [1]]),
            }
            expected = [event for event in map(expect(key, end, options), history) if event]
            async with reading.watch(key, end, **options) as watch:
                assert await watch.read_all() == expected, (key, end, options)


@pytest.mark.parametrize("seed", _SEEDS)
async def test_events_as_they_happen_equal_etcds(seed: int, etcd: Etcd, proxy: Proxy) -> None:
    chance = random.Random(seed)
    proxy.start()
    before = write_at_random(chance, etcd, 10)
    await_revision(proxy, before)
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(reader(proxy, proxy.certificate("admin-c1")))
        theirs = Reader(await stack.enter_async_context(grpc.aio.insecure_channel(etcd.address)))
        whole = await stack.enter_async_context(theirs.watch(b"cilium/", b"meshd0", prev_kv=True))
        watches = []
        for _ in range(_WATCHES // 4):
            key, end = chance.choice([(b"cilium/", b"cilium0"), (random_key(chance), b""), (random_key(chance), b"\0")])
            options: dict[str, Any] = {
                "start_revision": chance.choice([0, 0, before + chance.randint(1, 40)]),
                "prev_kv": chance.random() < 0.3,
                "fragment": chance.random() < 0.3,
                "filters": chance.choice([[], [], [0], [1]]),
            }
            watches.append((await stack.enter_async_context(ours.watch(key, end, **options)), key, end, options))
        revision = write_at_random(chance, etcd, 60)
        history = [event for answer in await whole.read_until(revision) for event in answer.events]
        await_revision(proxy, revision)
        for watch, key, end, options in watches:
            expected = [event for event in map(expect(key, end, options), history) if event]
            assert await watch.read_all() == expected, (key, end, options)


def expect(key: bytes, end: bytes, options: dict[str, Any]) -> Callable[[kv_pb2.Event], kv_pb2.Event | None]:
    """What a watcher with these options hears of an event that etcd told a watcher of everything."""

    def of_event(event: kv_pb2.Event) -> kv_pb2.Event | None:
        found = event.kv.key
        inside = found == key if not end else found >= key and (end == b"\0" or found < end)
        if not inside or event.kv.mod_revision < options["start_revision"] or event.type in options["filters"]:
            return None
        previous = event.prev_kv if options["prev_kv"] and event.HasField("prev_kv") else None
        return kv_pb2.Event(type=event.type, kv=event.kv, prev_kv=previous)

    return of_event


async def test_errors_equal_etcds(etcd: Etcd, proxy: Proxy) -> None:
    for number in range(30):
        etcd.put("cilium/state/a", str(number))
    etcd.compact(20)
    proxy.start()
    proxy.await_synced()
    plain = grpc.aio.insecure_channel(etcd.address)
    async with reader(proxy, proxy.certificate("admin-c1")) as ours, plain:
        theirs = Reader(plain)
        for key, revision in ((b"", 0), (b"a", 5), (b"a", 10_000)):
            problems = []
            for reading in (ours, theirs):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await reading.range(key, revision=revision)
                problems.append((refused.value.code(), refused.value.details()))
            assert problems[0] == problems[1]
        for reading in (ours, theirs):
            async with reading.watch(b"cilium/", b"cilium0", start_revision=5) as watch:
                answer = await watch.read()
                assert answer.canceled
                assert answer.compact_revision > 5


@pytest.mark.parametrize("more", [{"revision": -1}, {"revision": -(2**63)}, {"limit": 2**63 - 1}, {"limit": -(2**63)}])
async def test_numbers_that_make_no_sense_are_answered_as_etcd_does(
    etcd: Etcd, proxy: Proxy, more: dict[str, int]
) -> None:
    write_at_random(random.Random(1), etcd, 30)
    proxy.start()
    proxy.await_synced()
    plain = grpc.aio.insecure_channel(etcd.address)
    async with reader(proxy, proxy.certificate("admin-c1")) as ours, plain:
        theirs = await Reader(plain).range(b"cilium/", b"meshd0", **more)
        assert theirs.count > 0
        for extra in ({}, {"sort_order": rpc_pb2.RangeRequest.DESCEND}, {"sort_target": rpc_pb2.RangeRequest.MOD}):
            answer = await ours.range(b"cilium/", b"meshd0", **more, **extra)
            assert sorted(kv.key for kv in answer.kvs) == [kv.key for kv in theirs.kvs]
            assert (answer.count, answer.more) == (theirs.count, theirs.more)


async def test_pages_survive_writes_between_them(etcd: Etcd, proxy: Proxy) -> None:
    expected = {f"cilium/state/{number:03}": "old" for number in range(100)}
    revision = etcd.put_all(expected)
    proxy.start()
    await_revision(proxy, revision)
    found: dict[str, str] = {}
    async with reader(proxy, proxy.certificate("remote-c2")) as reading:
        page = await reading.range(b"cilium/state/", b"cilium/state0", limit=9)
        pinned = page.header.revision
        while True:
            found |= {kv.key.decode(): kv.value.decode() for kv in page.kvs}
            if not page.more:
                break
            etcd.delete(f"cilium/state/{len(found):03}", f"cilium/state/{len(found) + 3:03}")
            later = etcd.put("cilium/state/050-new", "new")
            await_revision(proxy, later)
            last = page.kvs[-1].key + b"\0"
            page = await reading.range(last, b"cilium/state0", limit=9, revision=pinned)
            assert page.header.revision == later
    assert found == expected
