"""A reader that opens a watch and never reads: bounded memory, no harm to others, ended in the end."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import grpc.aio
import pytest

from certs.authority import init_ca
from certs.leaves import issue
from certs.names import Leaf, server_name
from certs.pair import load_pair
from certs.reload import LivePair
from etcdproxy.history import History
from etcdproxy.hub import Hub
from etcdproxy.limits import Limits
from etcdproxy.policy import Policy
from etcdproxy.server import make_server
from etcdproxy.service import Service
from etcdproxy.store import Store
from tests.support.entries import entry
from tests.support.proxy import Reader, WatchCall

STATE, STATE_END = b"cilium/state/", b"cilium/state0"


@dataclass
class Door:
    hub: Hub
    service: Service
    channel: grpc.aio.Channel


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """A server in this process whose hub the test itself feeds: no etcd is needed."""
    now = datetime.now(UTC)
    authority = init_ca(tmp_path, now=now)
    server = issue(authority, Leaf.parse("server-c1"), tmp_path, now=now)
    client = issue(authority, Leaf.parse("remote-c2"), tmp_path, now=now)
    hub = Hub()
    hub.replace(History({}, 10, max_events=500), Store(1, 2, 3), continues=False)
    service = Service(hub, Policy("c1"), Limits(), stall_s=0.2)
    live = LivePair(server / "tls.crt", server / "tls.key", server / "ca.crt")
    running, port = make_server(service, "127.0.0.1:0", live)
    await running.start()
    own = load_pair(client / "tls.crt", client / "tls.key", client / "ca.crt")
    credentials = grpc.ssl_channel_credentials(own.authorities, own.key, own.certificate)
    options = [("grpc.ssl_target_name_override", server_name("c1")), ("grpc.max_receive_message_length", -1)]
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
        yield Door(hub, service, channel)
    await running.stop(0)


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
            door.hub.apply(revision, [(b"cilium/state/a", entry(b"cilium/state/a", value, revision))])
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
