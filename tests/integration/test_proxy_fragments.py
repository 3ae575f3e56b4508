"""etcd catches a watch up with answers bigger than one message may be, in fragments that split revisions.

The proxy is cut off while much is written. A raw watch beside it shows that etcd really sends such fragments to one
that asks as the proxy does.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import grpc.aio
import pytest

from tests.support.etcd import Etcd
from tests.support.proxy import Proxy, Reader, WatchCall, reader
from tests.support.relay import Relay
from tests.support.waiting import until
from wire.proto import rpc_pb2

pytestmark = pytest.mark.etcd

STATE, STATE_END = b"cilium/state/", b"cilium/state0"
MAX_REQUEST = 100_000  # bytes; etcd's answers are split where they are 512 KiB bigger than this
REVISIONS, KEYS, VALUE = 400, 17, 600  # some 10 kB a revision, 4 MB in all
CUTS = (150_000, 700_000, 1_500_000, 3_000_000)  # bytes of the catch-up that arrive, within its fragments


@dataclass
class Place:
    """A proxy that reaches its etcd over a relay."""

    etcd: Etcd
    relay: Relay
    proxy: Proxy


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    etcd = Etcd(tmp_path / "etcd", options=[f"--max-request-bytes={MAX_REQUEST}"])
    etcd.start()
    relay = Relay(etcd.address)
    proxy = Proxy(tmp_path / "proxy", f"http://{relay.address}")
    try:
        etcd.put(STATE + b"first", "1")
        proxy.start()
        proxy.await_synced()
        yield Place(etcd, relay, proxy)
    finally:
        proxy.kill()
        relay.close()
        etcd.kill()


def is_state(place: Place, state: str) -> None:
    place.proxy.await_status(lambda status: bool(status["upstream"]["state"] == state))


def write_much(etcd: Etcd) -> list[int]:
    """Revisions of KEYS keys each; the value begins with the number of its revision."""
    written = []
    for number in range(REVISIONS):
        keys = [f"{STATE.decode()}{(number + each) % 40:02}" for each in range(KEYS)]
        written.append(etcd.put_all({key: f"{number:04}" + key[-1] * VALUE for key in keys}))
    return written


@dataclass
class Heard:
    """What a watcher was told, up to `header`: revisions in their order."""

    header: int = 0
    revisions: list[int] = field(default_factory=list)

    def take(self, answer: rpc_pb2.WatchResponse) -> None:
        """Every answer must be a place to go on from: nothing older follows, and it ends with a whole revision."""
        assert not answer.canceled
        assert not answer.fragment
        counts = Counter(event.kv.mod_revision for event in answer.events)
        told = list(counts)  # in the order of their first events
        assert told == sorted(told)
        assert all(self.header < revision <= answer.header.revision for revision in told)
        assert set(counts.values()) <= {KEYS}
        self.header = answer.header.revision
        self.revisions += told


async def hear(watch: WatchCall, last: int) -> Heard:
    heard = Heard()
    while not heard.revisions or heard.revisions[-1] < last:
        heard.take(await watch.read())
    return heard


@asynccontextmanager
async def raw(etcd: Etcd) -> AsyncIterator[Reader]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(etcd.address, options=options) as channel:
        yield Reader(channel)


async def count_fragments(etcd: Etcd, start: int, last: int) -> tuple[int, int]:
    """How many fragments etcd itself sends to catch up from `start`, and how many of them end within a revision."""
    async with raw(etcd) as reading, reading.watch(STATE, STATE_END, start_revision=start, fragment=True) as watch:
        answers = await watch.read_until(last)
        while answers[-1].fragment:
            answers.append(await watch.read())
    split = [one for one, two in pairwise(answers) if one.events[-1].kv.mod_revision == two.events[0].kv.mod_revision]
    return sum(answer.fragment for answer in answers), sum(answer.fragment for answer in split)


async def write_behind_its_back(place: Place) -> list[int]:
    """The proxy is cut off, and misses all of it. The revisions."""
    place.relay.cut()
    is_state(place, "away")
    return await asyncio.to_thread(write_much, place.etcd)


async def compare_lists(place: Place, reading: Reader, last: int) -> int:
    """While the proxy catches up: each list is etcd's at the revision that its header says. Returns how many."""
    lists, revision = 0, 0
    async with raw(place.etcd) as truth:
        while revision < last:
            listed = await reading.range(STATE, STATE_END)
            assert listed.header.revision >= revision
            revision = listed.header.revision
            assert listed.kvs == (await truth.range(STATE, STATE_END, revision=revision)).kvs
            lists += 1
    return lists


async def test_what_etcd_tells_in_fragments_is_told_whole_and_in_order(place: Place) -> None:
    async with (
        reader(place.proxy, place.proxy.certificate("remote-c2")) as reading,
        reading.watch(STATE, STATE_END) as watch,
    ):
        written = await write_behind_its_back(place)
        fragments, within = await count_fragments(place.etcd, written[0], written[-1])
        assert fragments >= 4
        assert within > 0
        listing = asyncio.ensure_future(compare_lists(place, reading, written[-1]))
        place.relay.resume()
        heard = await hear(watch, written[-1])
        assert heard.revisions == written
        assert await listing > 0
        async with reading.watch(STATE, STATE_END, start_revision=written[REVISIONS // 3]) as later:
            assert (await hear(later, written[-1])).revisions == written[REVISIONS // 3 :]
    status = place.proxy.status()["upstream"]
    assert (status["lists"], status["resumes"]) == (1, 1)


async def test_a_network_that_fails_between_fragments_leaves_no_half_of_a_revision(place: Place) -> None:
    async with (
        reader(place.proxy, place.proxy.certificate("remote-c2")) as reading,
        reading.watch(STATE, STATE_END) as watch,
    ):
        written = await write_behind_its_back(place)
        hearing = asyncio.ensure_future(hear(watch, written[-1]))
        for size in CUTS:
            place.relay.cut_after(size)
            place.relay.resume()
            await asyncio.to_thread(until, lambda: place.relay.is_cut, "a cut")
            is_state(place, "away")
            assert not hearing.done()
        place.relay.resume()
        assert (await hearing).revisions == written
    assert place.proxy.status()["upstream"]["lists"] == 1
