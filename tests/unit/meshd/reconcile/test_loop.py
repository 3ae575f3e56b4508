"""The loop on the fake maps: rounds happen when something is dirty or due, and only then."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from typing import ParamSpec, TypeVar

from datapath.entries import Entry, backend_entry, maglev_entry
from datapath.maglev import DEFAULT_SIZE, ENTRY_BYTES
from meshd.daemon.kernel import MapShape, MapTarget
from meshd.reconcile.loop import BRIEF, Loop, Reconciler
from tests.support.kernel import FakeMaps

P = ParamSpec("P")
T = TypeVar("T")
BACKENDS = [backend_entry(number, IPv4Address("10.0.0.1"), number, 6) for number in range(1, BRIEF + 2)]


class CountingExecutor(ThreadPoolExecutor):
    """`hops` counts what went to the worker thread."""

    hops = 0

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        self.hops += 1
        return super().submit(work, *args, **kwargs)


class Work:
    """A reconciler with its loop; `todo` are wishes that refresh takes one by one."""

    def __init__(self, executor: CountingExecutor) -> None:
        self.executor = executor
        self.maps = FakeMaps()
        self.reconciler = Reconciler("maps", MapTarget(self.maps), MapShape())
        self.todo: list[int] = []
        self.settled = 0
        self.loop = Loop([self.reconciler], executor, refresh=self._refresh, settled=self._settled)

    def wish(self, *numbers: int) -> None:
        self.todo += numbers
        self.loop.wake()

    def want(self, *entries: Entry) -> None:
        """All of them in one round."""
        for entry in entries:
            self.reconciler.delta.want(entry.map, entry.key, entry.value)
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
    with CountingExecutor(1) as executor:
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


async def test_a_small_change_is_in_the_maps_within_two_turns_of_the_event_loop_and_without_another_thread() -> None:
    async with working() as work:
        await asyncio.sleep(0)  # the loop's task waits now
        work.want(*BACKENDS[:BRIEF])
        for _ in range(2):
            await asyncio.sleep(0)
        assert len(work.maps.content["md_be4"]) == BRIEF
        assert work.executor.hops == 0


async def test_a_large_round_does_not_keep_the_event_loop_from_its_work() -> None:
    async with working() as work:
        work.want(*BACKENDS[: BRIEF + 1])
        await until(lambda: work.reconciler.rounds == 1)
        assert work.executor.hops == 1


async def test_a_map_whose_writers_wait_for_the_kernel_is_written_in_the_other_thread() -> None:
    async with working() as work:
        work.want(maglev_entry(IPv4Address("10.0.0.1"), 80, 6, bytes(DEFAULT_SIZE * ENTRY_BYTES)))
        await until(lambda: work.reconciler.rounds == 1)
        assert work.executor.hops == 1


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
