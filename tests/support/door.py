"""A proxy's server in the test's own process, whose hub the test itself feeds: no etcd is needed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import grpc.aio

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


@dataclass
class Door:
    """`channel` is that of one reader; `certificate` is the folder of what it shows."""

    hub: Hub
    service: Service
    port: int
    certificate: Path
    channel: grpc.aio.Channel


@asynccontextmanager
async def open_door(folder: Path, *, stall_s: float, max_events: int = 500) -> AsyncIterator[Door]:
    now = datetime.now(UTC)
    authority = init_ca(folder, now=now)
    server = issue(authority, Leaf.parse("server-c1"), folder, now=now)
    client = issue(authority, Leaf.parse("remote-c2"), folder, now=now)
    hub = Hub()
    hub.replace(History({}, 10, max_events=max_events), Store(1, 2, 3), continues=False)
    service = Service(hub, Policy("c1"), Limits(), stall_s=stall_s)
    live = LivePair(server / "tls.crt", server / "tls.key", server / "ca.crt")
    running, port = make_server(service, "127.0.0.1:0", live)
    await running.start()
    own = load_pair(client / "tls.crt", client / "tls.key", client / "ca.crt")
    credentials = grpc.ssl_channel_credentials(own.authorities, own.key, own.certificate)
    options = [("grpc.ssl_target_name_override", server_name("c1")), ("grpc.max_receive_message_length", -1)]
    try:
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
            yield Door(hub, service, port, client, channel)
    finally:
        await running.stop(0)
