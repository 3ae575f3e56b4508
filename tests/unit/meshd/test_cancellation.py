"""A task that is told to end ends, also if something in it fails at the same moment."""

import asyncio

from meshd.cancellation import heed_cancellation


async def fail(after: asyncio.Event) -> None:
    await after.wait()
    raise OSError


async def spell(now: asyncio.Event, begun: list[None]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail(now))
            begun.append(None)
            await asyncio.Event().wait()
    except* OSError:
        now.clear()
    heed_cancellation()


async def spells(now: asyncio.Event, begun: list[None]) -> None:
    while True:
        await spell(now, begun)


async def test_a_failure_at_the_moment_of_the_end_is_no_reason_to_try_again() -> None:
    now, begun = asyncio.Event(), list[None]()
    task = asyncio.create_task(spells(now, begun))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    now.set()
    await asyncio.sleep(0)  # `fail` is next, and its group has not heard of it
    task.cancel()
    await asyncio.wait([task], timeout=20)
    assert (task.cancelled(), len(begun)) == (True, 1)


async def test_a_failure_alone_is_a_reason() -> None:
    now, begun = asyncio.Event(), list[None]()
    task = asyncio.create_task(spells(now, begun))
    for turn in range(1, 4):
        while len(begun) < turn:  # noqa: ASYNC110 — the fact is no event
            await asyncio.sleep(0)
        now.set()
        while now.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    await asyncio.wait([task], timeout=20)
    assert task.cancelled()
