"""A reader that opens a watch and never reads: bounded memory, no harm to others, ended in the end."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from tests.support.door import Door, open_door
from tests.support.entries import entry
from tests.support.proxy import Reader, WatchCall

STATE, STATE_END = b"cilium/state/", b"cilium/state0"


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with open_door(tmp_path, stall_s=0.2) as opened:
        yield opened


async def read_to_the_end(watch: WatchCall) -> None:
    """What was on its way to the reader still comes, then the reason why there is no more."""
    while True:
        await watch.read()


async def test_who_does_not_read_is_ended_and_the_others_lose_nothing(door: Door) -> None:
    reading = Reader(door.channel)
    async with (
        reading.watch(STATE, STATE_END) as deaf,
        reading.watch(STATE, STATE_END) as good,
    ):
        value = b"x" * 50_000
        heard: list[int] = []
        for revision in range(11, 1011):
            door.hub.apply([(revision, [(b"cilium/state/a", entry(b"cilium/state/a", value, revision))])])
            answers = await good.read_until(revision)
            heard += [event.kv.mod_revision for answer in answers for event in answer.events]
        assert heard == list(range(11, 1011))
        assert door.hub.history.kept_events <= 500
        assert door.service.peers.streams == 2
        async with asyncio.timeout(20):
            while door.service.peers.streams == 2:
                door.service.end_stalled()
                await asyncio.sleep(0.01)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await read_to_the_end(deaf)
        assert ended.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert door.service.peers.streams == 1
