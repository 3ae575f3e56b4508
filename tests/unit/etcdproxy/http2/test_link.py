"""A TLS link on real sockets with small buffers: whatever the kernel takes at once, what is written arrives whole."""

import asyncio
import random
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from certs.authority import init_ca
from certs.leaves import issue
from certs.names import Leaf
from certs.pair import load_pair
from etcdproxy.http2.link import TlsLink
from etcdproxy.http2.tls import client_context, server_context

_BUFFER = 20_000  # bytes that a socket keeps
_DEADLINE_S = 20


@dataclass
class User:
    """Notes what it is told."""

    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    has_room: asyncio.Event = field(default_factory=asyncio.Event)
    is_closed: asyncio.Event = field(default_factory=asyncio.Event)
    refusals: list[ssl.SSLError] = field(default_factory=list)
    heard: bytes = b""
    ends: int = 0

    def opened(self) -> None:
        self.is_open.set()

    def refused(self, error: ssl.SSLError) -> None:
        self.refusals.append(error)

    def received(self, data: bytes) -> None:
        self.heard += data

    def writable(self) -> None:
        self.has_room.set()

    def closed(self) -> None:
        self.ends += 1
        self.is_closed.set()


@dataclass
class Ends:
    """A link, its user, and the reader at the other end."""

    link: TlsLink
    user: User
    reader: ssl.SSLSocket

    async def read(self, size: int) -> bytes:
        return await asyncio.to_thread(self.reader.recv, size)


@pytest.fixture
async def ends(tmp_path: Path) -> AsyncIterator[Ends]:
    now = datetime.now(UTC)
    authority = init_ca(tmp_path, now=now)
    contexts = []
    for name, make in (("server-c1", server_context), ("remote-c2", client_context)):
        folder = issue(authority, Leaf.parse(name), tmp_path, now=now, addresses=["127.0.0.1"])
        contexts.append(make(load_pair(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        plain.connect(listener.getsockname())
        accepted = listener.accept()[0]
    accepted.setblocking(False)
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    user = User()
    link = TlsLink(accepted, contexts[0], user)
    plain.settimeout(_DEADLINE_S)
    reader = await asyncio.to_thread(
        contexts[1].wrap_socket, plain, server_hostname="127.0.0.1", suppress_ragged_eofs=False
    )
    async with asyncio.timeout(_DEADLINE_S):
        await user.is_open.wait()
    try:
        yield Ends(link, user, reader)
    finally:
        link.abort()
        reader.close()


@pytest.mark.parametrize("seed", range(4))
async def test_what_is_written_arrives_whole_then_a_goodbye(seed: int, ends: Ends) -> None:
    chance = random.Random(seed)
    written, heard = bytearray(), bytearray()
    for _ in range(60):
        data = chance.randbytes(chance.choice([1, 100, 20_000, 70_000]))
        before = ends.link.room()
        ends.link.write(data)  # also over the room that there is: pings must be answered
        written += data
        assert ends.link.room() <= before
        if chance.random() < 0.3:
            heard += await ends.read(50_000)
    assert ends.link.room() == 0
    ends.link.close()
    assert ends.link.room() == 0
    while piece := await ends.read(50_000):  # nothing at the end: TLS's own goodbye, or this would be an error
        heard += piece
    assert heard == written
    ends.reader.close()
    async with asyncio.timeout(_DEADLINE_S):
        await ends.user.is_closed.wait()
    assert ends.user.ends == 1


async def test_who_takes_nothing_is_not_listened_to_and_is_again_once_there_is_room(ends: Ends) -> None:
    size = 3 << 20
    ends.link.write(bytes(size))
    ends.link.write(b"!")
    ends.reader.send(b"more")
    heard = await ends.read(1)
    assert (ends.user.heard, ends.link.room()) == (b"", 0)
    while len(heard) <= size:
        heard += await ends.read(1 << 20)
    assert heard == bytes(size) + b"!"
    async with asyncio.timeout(_DEADLINE_S):
        await ends.user.has_room.wait()
        while ends.user.heard != b"more":  # noqa: ASYNC110 — what is heard is no event
            await asyncio.sleep(0.01)
    assert ends.link.room() > 0


async def test_a_reader_that_goes_while_bytes_wait_ends_the_link_once(ends: Ends) -> None:
    ends.link.write(bytes(3 << 20))
    ends.reader.close()
    async with asyncio.timeout(_DEADLINE_S):
        await ends.user.is_closed.wait()
    ends.link.write(b"nobody is there")
    ends.link.close()
    assert (ends.user.ends, ends.link.room()) == (1, 0)
