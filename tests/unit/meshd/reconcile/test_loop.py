"""The loop on the fake maps: rounds happen when something is dirty or due, and only then."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from ipaddress import IPv4Address

from datapath.entries import backend_entry
from meshd.daemon.kernel import MapShape, MapTarget
from meshd.reconcile.loop import Loop, Reconciler
from tests.support.kernel import FakeMaps

BACKENDS = [backend_entry(number, IPv4Address("10.0.0.1"), number, 6) for number in range(1, 9)]


class Work:
    """A reconciler with its loop; `todo` are wishes that refresh takes one by one."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self.maps = FakeMaps()
        self.reconciler = Reconciler("maps", MapTarget(self.maps), MapShape())
        self.todo: list[int] = []
        self.settled = 0
        self.loop = Loop([self.reconciler], executor, refresh=self._refresh, settled=self._settled)

    def wish(self, *numbers: int) -> None:
        self.todo += numbers
        self.loop.wake()

    def _refresh(self) -> bool:
        if self.todo:
            entry = BACKENDS[self.todo.pop(0)]
            self.reconciler.delta.want(entry.map, entry.key, entry.value)
        return bool(self.todo)

    def _settled(self) -> None:
        self.settled += 1


@asynccontextmanager
async def working() -> AsyncIterator[Work]:
    with ThreadPoolExecutor(1) as executor:
        async with asyncio.TaskGroup() as group:
            work = Work(executor)
            task = group.create_task(work.loop.run())
            yield work
            task.cancel()


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not fact():  # noqa: ASYNC110 — the facts are no events
            await asyncio.sleep(0.005)


async def test_whatever_is_taken_in_slices_is_written_in_rounds() -> None:
    async with working() as work:
        work.wish(*range(8))
        await until(lambda: len(work.maps.content["md_be4"]) == 8)
        await until(lambda: work.settled == 8)
        assert work.reconciler.rounds == 8
        assert work.reconciler.in_sync_since is not None


async def test_a_wake_without_a_difference_is_no_round() -> None:
    async with working() as work:
        work.loop.wake()
        await until(lambda: work.settled == 1)
        assert work.reconciler.rounds == 0


async def test_what_fails_is_tried_again_and_shown_until_then() -> None:
    async with working() as work:
        work.maps.fails = lambda op, map, key: True
        work.wish(0)
        await until(lambda: bool(work.reconciler.retries.failures))
        assert work.reconciler.in_sync_since is None
        work.maps.fails = lambda op, map, key: False
        await until(lambda: work.reconciler.in_sync_since is not None)
        assert not work.reconciler.retries.failures
        assert len(work.maps.content["md_be4"]) == 1
