"""A reader's connection: TLS first, then HTTP/2, or the one request in HTTP/1.1."""

import socket
import ssl
from typing import Protocol

from etcdproxy.http2.call import Call
from etcdproxy.http2.frames import PREFACE
from etcdproxy.http2.http1 import answer_request
from etcdproxy.http2.link import TlsLink
from etcdproxy.http2.session import Session
from etcdproxy.http2.status import Status
from etcdproxy.http2.tls import peer_name
from etcdproxy.http2.turn import Turn

GREETING_S = 10.0  # until the handshake is over and the first request is there
PING_S = 20.0  # of silence, then it is asked whether it still lives
SILENCE_S = 40.0


class House(Protocol):
    """The server, as its readers' connections see it."""

    def admit(self, reader: "Reader") -> Status | None:
        """Takes a reader that has shown a good certificate; how it is refused, if it is."""

    def turn_away(self, reader: "Reader", error: ssl.SSLError) -> None:
        """Takes note of a failed handshake."""

    def leave(self, reader: "Reader") -> None:
        """The connection is gone."""

    @property
    def turn(self) -> Turn:
        """What the connections have in common: when they send."""

    def version_for(self, name: str) -> str | None:
        """etcd's version, empty if it is not known yet; None if this reader may not know."""

    async def serve(self, call: Call) -> None:
        """Runs a call to its end."""


class Reader:
    """One connection. `name` is that of its certificate, empty before the handshake is over."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, address: str, house: House, now: float) -> None:
        self.name = ""
        self.address = address
        self.heard = self.since = now
        self._house = house
        self._first = b""
        self._refusal: Status | None = None
        self._session: Session | None = None
        self.link = TlsLink(sock, context, self)

    def opened(self) -> None:
        self.name = peer_name(self.link.tls.getpeercert())
        self._refusal = self._house.admit(self)
        if self.link.tls.selected_alpn_protocol() == "h2":
            self._begin()

    def refused(self, error: ssl.SSLError) -> None:
        self._house.turn_away(self, error)

    def received(self, data: bytes) -> None:
        self.heard = self.link.time()
        if self._session is not None:
            return self._session.receive(data)
        self._first += data
        head = self._first[: len(PREFACE)]
        if head == PREFACE:  # HTTP/2 without having said so
            self._begin().receive(self._first)
            self._first = b""
        elif not PREFACE.startswith(head):
            self._answer_in_http1()

    def writable(self) -> None:
        if self._session is not None:
            self._session.flush()

    def closed(self) -> None:
        if self._session is not None:
            self._session.lost()
        self._house.leave(self)

    def drain(self) -> None:
        """Ends the connection after the calls that are being answered."""
        if self._session is not None:
            self._session.drain()
        else:
            self.link.close()

    def look(self, now: float) -> None:
        """Ends a connection that is not used as it should be; to be called every few seconds."""
        if self._session is None:
            if now - self.since > GREETING_S:
                self.link.abort()
        elif now - self.heard > SILENCE_S:
            self.link.abort()
        else:
            self._session.look()
            if now - self.heard > PING_S:
                self._session.ping()

    def _begin(self) -> Session:
        serve, name, address = self._house.serve, self.name, self.address
        turn, refusal = self._house.turn, self._refusal
        self._session = Session(self.link, serve, turn, name=name, address=address, refusal=refusal)
        return self._session

    def _answer_in_http1(self) -> None:
        answer = answer_request(self._first, self._house.version_for(self.name))
        if answer is not None:
            self._first = b""
            self.link.write(answer)
            self.link.close()
