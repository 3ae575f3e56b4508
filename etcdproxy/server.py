"""The listening end: who may connect at all, how many, and how the server goes away without a herd at the next one."""

import asyncio
import errno
import logging
import os
import random
import socket
import ssl
from contextlib import suppress

from grpc import StatusCode

from certs.checks import Purpose
from certs.pair import Pair
from certs.reload import LivePair
from etcdproxy.conversation import TOO_MANY
from etcdproxy.http2.call import Call
from etcdproxy.http2.reader import Reader
from etcdproxy.http2.status import Status
from etcdproxy.http2.tls import refusal, server_context
from etcdproxy.http2.turn import Turn
from etcdproxy.peers import Peer
from etcdproxy.service import Service

logger = logging.getLogger(__name__)

_LOOK_S = 5.0
_BACKLOG = 1_024
_MAX_ACCEPTS = 32  # at one turn of the event loop
_MAX_HANDSHAKES = 256  # under way; beyond, the oldest makes place
_PAUSE_S = 0.5  # without a file descriptor for the next reader
_SPREAD_S = 0.01  # a reader, of the time over which they are sent away at the end
MAX_SPREAD_S = 5.0


class ListenError(Exception):
    """The address cannot be listened on; str(error) names it."""


def make_server(service: Service, listen: str, live: LivePair) -> tuple["Server", int]:
    """A server, not started yet, that wants a certificate of every reader; and its port. Raises ListenError."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, int(port)), family=family, backlog=_BACKLOG)
    except (OSError, ValueError, OverflowError) as error:
        reason = str(error)
        if isinstance(error, OSError) and error.errno:  # of a name that cannot be resolved it is negative
            reason = os.strerror(error.errno) if error.errno > 0 else str(error.strerror)
        text = f"cannot listen on {listen} ({reason}): is the address free and one of this machine's?"
        raise ListenError(text) from error
    listener.setblocking(False)
    return Server(service, listener, live), int(listener.getsockname()[1])


class Server:
    """Readers' connections. Every new one is met with the certificate files as they are then."""

    def __init__(self, service: Service, listener: socket.socket, live: LivePair) -> None:
        self._service = service
        self._listener = listener
        self._live = live
        self._pair = live.pair
        self._context = _make_context(live.pair)
        self._greeting: dict[Reader, None] = {}  # the handshake is under way, oldest first
        self._readers: dict[Reader, Peer] = {}  # the handshake is over
        self._empty = asyncio.Event()
        self._empty.set()
        self._looking: asyncio.TimerHandle | None = None
        self._stopping = False
        self.turn = Turn(asyncio.get_running_loop())

    async def start(self) -> None:
        self._listen()
        self._look()

    async def stop(self, grace_s: float) -> None:
        """Takes no new readers; sends away those that are there, one by one; ends all `grace_s` after the last."""
        self._stopping = True
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        if self._looking:
            self._looking.cancel()
        for reader in list(self._greeting):
            reader.link.abort()
        readers = list(self._readers)
        random.shuffle(readers)
        pause_s = min(_SPREAD_S, MAX_SPREAD_S / max(len(readers), 1)) if grace_s else 0
        for reader in readers:
            reader.drain()
            await asyncio.sleep(pause_s)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), grace_s)
        for reader in list(self._readers):
            reader.link.abort()

    # What connections tell

    def admit(self, reader: Reader) -> Status | None:
        self._greeting.pop(reader, None)
        peer = self._readers[reader] = self._service.see(reader.name)
        self._empty.clear()
        excess = self._service.peers.excess_connections(peer)
        self._service.peers.count_connection(peer, 1)
        if not excess:
            return None
        self._service.note_refusal(peer, f"{TOO_MANY} {excess}", reader.address)
        return Status(StatusCode.RESOURCE_EXHAUSTED, f"{TOO_MANY} {excess}")

    def turn_away(self, reader: Reader, error: ssl.SSLError) -> None:
        self._service.note_handshake(reader.address, refusal(error), str(error))

    def leave(self, reader: Reader) -> None:
        self._greeting.pop(reader, None)
        if (peer := self._readers.pop(reader, None)) is not None:
            self._service.peers.count_connection(peer, -1)
            if not self._readers:
                self._empty.set()

    def version_for(self, name: str) -> str | None:
        return self._service.version_for(name)

    async def serve(self, call: Call) -> None:
        await self._service.serve(call)

    # Accepting

    def _listen(self) -> None:
        if not self._stopping:
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_MAX_ACCEPTS):
            try:
                sock, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                return self._pause(error)
            self._greet(sock, address)

    def _pause(self, error: OSError) -> None:
        """Without descriptors or memory, waiting readers would wake us for nothing."""
        logger.error("no reader can be accepted", extra={"reason": errno.errorcode.get(error.errno or 0, str(error))})
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener)
        loop.call_later(_PAUSE_S, self._listen)

    def _greet(self, sock: socket.socket, address: tuple[str, int]) -> None:
        if len(self._readers) + len(self._greeting) >= self._service.peers.limits.connections:
            self._service.peers.refused[f"{TOO_MANY} connections"] += 1
            sock.close()
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host = f"ipv6:[{address[0]}]" if ":" in address[0] else f"ipv4:{address[0]}"
        now = asyncio.get_running_loop().time()
        if len(self._greeting) >= _MAX_HANDSHAKES:
            next(iter(self._greeting)).link.abort()
        try:
            reader = Reader(sock, self._current_context(), f"{host}:{address[1]}", self, now)
        except OSError:  # gone already
            return sock.close()
        self._greeting[reader] = None

    def _current_context(self) -> ssl.SSLContext:
        self._live.refresh()
        if self._live.pair != self._pair:
            self._pair = self._live.pair
            self._context = _make_context(self._pair)
        return self._context

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for reader in [*self._greeting, *self._readers]:
            reader.look(now)
        self._looking = loop.call_later(_LOOK_S, self._look)


def _make_context(pair: Pair) -> ssl.SSLContext:
    if why := pair.misuse(Purpose.SERVER):
        logger.warning("readers will refuse this proxy's certificate", extra={"reason": why})
    return server_context(pair)
