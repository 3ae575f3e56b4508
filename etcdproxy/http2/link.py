"""A TLS connection on the event loop: encrypted once, written once, with bounded buffers.

asyncio's own TLS transport costs several times this much for each small write, and keeps the reason of a failed
handshake to itself.
"""

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import Protocol

_HIGH = 128 << 10  # encrypted bytes that wait for the reader; more is not taken from the calls
_PAUSE = 1 << 20  # a reader that makes us answer, and takes no answer, is no longer read
_CHUNK = 64 << 10
_LINGER_S = 1.0  # so that a last word (an alert, a goaway) arrives before the end


class User(Protocol):
    """Who is told what happens on a link."""

    def opened(self) -> None:
        """The handshake is over and the reader's certificate is good."""

    def refused(self, error: ssl.SSLError) -> None:
        """The handshake has failed."""

    def received(self, data: bytes) -> None: ...

    def writable(self) -> None:
        """There is room again."""

    def closed(self) -> None:
        """The link is gone; called once."""


class TlsLink:
    """One connection, from its handshake on. `tls` tells of certificate and protocol."""

    __slots__ = (
        "_closing", "_gone", "_incoming", "_lingering", "_loop", "_outgoing", "_reads", "_socket", "_unsent",
        "_user", "_writes", "is_open", "tls",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, user: User) -> None:
        self._socket = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.is_open = False
        self._user = user
        self._loop = asyncio.get_running_loop()
        self._unsent = memoryview(b"")
        self._reads = self._writes = False
        self._closing = False
        self._gone = False
        self._lingering: asyncio.TimerHandle | None = None
        self._read_more()

    def room(self) -> int:
        """How many bytes are taken now."""
        if not self.is_open or self._closing:
            return 0
        return max(_HIGH - self._waiting, 0) if self._writes else _HIGH

    def time(self) -> float:
        """The event loop's time."""
        return self._loop.time()

    def write(self, data: bytes) -> None:
        """Encrypts and sends; what the kernel does not take waits."""
        if not self.is_open or self._closing:
            return
        try:
            written = self.tls.write(data)
            while written < len(data):  # a TLS record is 16 KiB at most
                written += self.tls.write(memoryview(data)[written:])
        except ssl.SSLError:
            return self.abort()
        if self._writes:
            if self._waiting > _PAUSE:
                self._read_no_more()
        elif not self._send_at_once():
            self._send()

    def close(self) -> None:
        """Sends what waits, says goodbye, and ends."""
        if self._closing or self._gone:
            return
        if self.is_open:
            with suppress(ssl.SSLError):  # it has written its goodbye, and would now wait for the reader's
                self.tls.unwrap()
        self._closing = True
        self._lingering = self._loop.call_later(_LINGER_S, self.abort)
        self._send()

    def abort(self) -> None:
        """Ends at once."""
        if self._gone:
            return
        self._gone, self.is_open = True, False
        self._read_no_more()
        if self._writes:
            self._loop.remove_writer(self._socket)
        if self._lingering:
            self._lingering.cancel()
        self._socket.close()
        self._user.closed()

    @property
    def _waiting(self) -> int:
        return len(self._unsent) + self._outgoing.pending

    def _send_at_once(self) -> bool:
        """The frequent case: nothing waits, and the kernel takes all. False: what is left is `_unsent`."""
        data = self._outgoing.read()
        try:
            sent = self._socket.send(data)
        except OSError:
            sent = 0  # `_send` meets it again
        if sent == len(data):
            return True
        self._unsent = memoryview(data)[sent:]
        return False

    def _send(self) -> None:
        try:
            while True:
                if not self._unsent:
                    if not self._outgoing.pending:
                        break
                    self._unsent = memoryview(self._outgoing.read())
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except (BlockingIOError, InterruptedError):
            if not self._writes:
                self._writes = True
                self._loop.add_writer(self._socket, self._on_writable)
            if self._waiting > _PAUSE:
                self._read_no_more()
            return
        except OSError:
            return self.abort()
        if self._writes:
            self._writes = False
            self._loop.remove_writer(self._socket)
        if self._closing:
            self._shut()
        else:
            self._read_more()

    def _on_writable(self) -> None:
        self._send()
        if not self._writes and self.is_open and not self._closing:
            self._user.writable()

    def _shut(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.abort()

    def _read_more(self) -> None:
        if not self._reads and not self._gone:
            self._reads = True
            self._loop.add_reader(self._socket, self._on_readable)

    def _read_no_more(self) -> None:
        if self._reads:
            self._reads = False
            self._loop.remove_reader(self._socket)

    def _on_readable(self) -> None:
        try:
            data = self._socket.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            return self.abort()
        if not data:
            return self.abort()
        if self._closing:
            return  # read and thrown away: closing with unread bytes would cut off our last word
        self._incoming.write(data)
        try:
            if not self.is_open:
                self.tls.do_handshake()
                self.is_open = True
                self._send()
                self._user.opened()
            self._decrypt()
        except ssl.SSLWantReadError:
            self._send()
        except ssl.SSLError as error:
            self._fail(error)

    def _decrypt(self) -> None:
        while self.is_open and not self._closing:
            data = self.tls.read(_CHUNK)
            if not data:
                return self.close()
            self._user.received(data)

    def _fail(self, error: ssl.SSLError) -> None:
        if not self.is_open:
            self._user.refused(error)
        self._closing = True
        self._lingering = self._loop.call_later(_LINGER_S, self.abort)
        self._send()  # the alert
