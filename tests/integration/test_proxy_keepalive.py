"""Is the other end alive? A reader may ask as often as it likes, and one that does not answer is let go."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import h2.events
import pytest

from etcdproxy.http2.frames import message_prefix
from tests.support.door import Door, open_door
from tests.support.entries import entry
from tests.support.http2_client import RawReader
from tests.support.proxy import Reader
from wire.proto import rpc_pb2

STATE, STATE_END = b"cilium/state/", b"cilium/state0"
_T = TypeVar("_T", bound=h2.events.Event)


@pytest.fixture
async def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    monkeypatch.setattr("etcdproxy.http2.reader.PING_S", 0.2)
    monkeypatch.setattr("etcdproxy.http2.reader.SILENCE_S", 1.0)
    monkeypatch.setattr("etcdproxy.server._LOOK_S", 0.05)
    async with open_door(tmp_path, stall_s=60) as opened:
        yield opened


def receive(reader: RawReader, kind: type[_T], number: int = 1) -> list[_T]:
    found: list[_T] = []
    while len(found) < number:
        events = reader.receive()
        assert events, "the connection has ended"
        found += [event for event in events if isinstance(event, kind)]
    return found


def watch(reader: RawReader) -> None:
    stream = reader.open()
    create = rpc_pb2.WatchCreateRequest(key=STATE, range_end=STATE_END)
    body = rpc_pb2.WatchRequest(create_request=create).SerializeToString()
    reader.machine.send_data(stream, message_prefix(len(body)) + body)
    reader.flush()
    receive(reader, h2.events.DataReceived)


def ping_often(reader: RawReader, number: int) -> None:
    for turn in range(number):
        reader.machine.ping(turn.to_bytes(8, "big"))
    reader.flush()
    acks = receive(reader, h2.events.PingAckReceived, number)
    assert [ack.ping_data for ack in acks] == [turn.to_bytes(8, "big") for turn in range(number)]


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not fact():  # noqa: ASYNC110 — the facts are no events
            await asyncio.sleep(0.01)


async def test_pings_without_number_are_answered_and_the_watch_goes_on(door: Door) -> None:
    """gRPC's C library would end the connection after the third (`too_many_pings`); Cilium asks every 15 s."""
    with closing(await asyncio.to_thread(RawReader, door.port, door.certificate)) as reader:
        await asyncio.to_thread(watch, reader)
        await asyncio.to_thread(ping_often, reader, 500)
        door.hub.apply([(11, [(b"cilium/state/a", entry(b"cilium/state/a", b"1", 11))])])
        await asyncio.to_thread(receive, reader, h2.events.DataReceived)


async def test_a_reader_that_no_longer_answers_is_let_go_and_one_that_only_listens_is_not(door: Door) -> None:
    with closing(await asyncio.to_thread(RawReader, door.port, door.certificate)) as dead:
        async with Reader(door.channel).watch(STATE, STATE_END) as silent:  # gRPC answers pings, nobody else speaks
            await asyncio.to_thread(watch, dead)
            assert (door.service.peers.connections, door.service.peers.streams) == (2, 2)
            await until(lambda: door.service.peers.connections == 1)
            await until(lambda: door.service.peers.watches == 1)
            for revision in (11, 12):
                await asyncio.sleep(1.1)  # nothing can be awaited here: longer than silence is borne, nobody speaks
                door.hub.apply([(revision, [(b"cilium/state/a", entry(b"cilium/state/a", b"1", revision))])])
                assert [event.kv.mod_revision for event in (await silent.read()).events] == [revision]
