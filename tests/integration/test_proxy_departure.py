"""A proxy that stops: its readers are sent away one after another, and go on at its sibling without a gap."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from tests.support.etcd import Etcd
from tests.support.proxy import Proxy, StreamEnded, WatchCall, reader

pytestmark = pytest.mark.etcd

STATE, STATE_END = b"cilium/state/", b"cilium/state0"
_READERS = 60
_AT_ONCE = 0.1  # seconds: of so many readers none of these may see more than a third leave


@pytest.fixture
def sibling(tmp_path: Path, proxy: Proxy) -> Iterator[Proxy]:
    made = proxy.sibling(tmp_path / "sibling")
    try:
        made.start()
        made.await_synced()
        yield made
    finally:
        made.kill()


@asynccontextmanager
async def watching(proxy: Proxy, certificate: Path, revision: int) -> AsyncIterator[WatchCall]:
    async with (
        reader(proxy, certificate) as reading,
        reading.watch(STATE, STATE_END, start_revision=revision) as watch,
    ):
        yield watch


async def read_to_the_end(watch: WatchCall) -> tuple[list[int], float]:
    """The revisions that were heard, and when the stream ended."""
    heard: list[int] = []
    try:
        while True:
            heard += [event.kv.mod_revision for event in (await watch.read()).events]
    except (StreamEnded, grpc.aio.AioRpcError):
        return heard, asyncio.get_running_loop().time()


async def test_readers_leave_one_by_one_and_miss_nothing(etcd: Etcd, proxy: Proxy, sibling: Proxy) -> None:
    certificate = proxy.certificate("remote-c2")
    revisions = [etcd.put("cilium/state/a", "0")]
    async with AsyncExitStack() as stack:
        watches = [await stack.enter_async_context(watching(proxy, certificate, revisions[0])) for _ in range(_READERS)]
        ends = [asyncio.create_task(read_to_the_end(watch)) for watch in watches]
        stopping = asyncio.create_task(asyncio.to_thread(proxy.stop))
        while not stopping.done():
            revisions.append(await asyncio.to_thread(etcd.put, "cilium/state/a", str(len(revisions))))
        assert await stopping == 0
        left = [await end for end in ends]
    times = sorted(when for _, when in left)
    most = max(sum(first <= when < first + _AT_ONCE for when in times) for first in times)
    assert most <= _READERS / 3
    for heard, _ in left:
        assert heard == revisions[: len(heard)]
        async with watching(sibling, certificate, revisions[len(heard) - 1] + 1 if heard else revisions[0]) as watch:
            rest = revisions[len(heard) :]
            answers = await watch.read_until(rest[-1]) if rest else []
            assert [event.kv.mod_revision for answer in answers for event in answer.events] == rest
