"""A TLS connection on the event loop: encrypted straight into the kernel, with bounded buffers.

asyncio's own TLS transport costs several times this much for each small write, and keeps the reason of a failed
handshake to itself.
"""

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import Protocol

_HIGH = 128 << 10  # bytes that wait for the reader; more is not taken from the calls
_PAUSE = 1 << 20  # a reader that makes us answer, and takes no answer, is no longer read
_RECORD = 16 << 10  # what TLS gives at once at most: nothing of it stays behind where epoll does not see it
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
    """One connection, from its handshake on. `tls` tells of certificate and protocol.

    Raises OSError if the reader is gone already.
    """

    __slots__ = (
        "_closing", "_gone", "_lingering", "_loop", "_reads", "_unsent", "_user", "_writes", "is_open", "tls",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, user: User) -> None:
        self.tls = context.wrap_socket(
            sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
        self.is_open = False
        self._user = user
        self._loop = asyncio.get_running_loop()
        self._unsent = bytearray()  # OpenSSL has begun with it, and wants to see it again from its beginning
        self._reads = self._writes = False
        self._closing = False
        self._gone = False
        self._lingering: asyncio.TimerHandle | None = None
        self._read_more()

    def room(self) -> int:
        """How many bytes are taken now."""
        if not self.is_open or self._closing:
            return 0
        return max(_HIGH - len(self._unsent), 0)

    def time(self) -> float:
        """The event loop's time."""
        return self._loop.time()

    def write(self, data: bytes) -> None:
        """Encrypts and sends; what the kernel does not take waits."""
        if not self.is_open or self._closing:
            return
        if self._unsent:
            self._unsent += data
            if len(self._unsent) > _PAUSE:
                self._read_no_more()
            return
        try:
            sent = self.tls.send(data)
        except ssl.SSLWantWriteError:
            sent = 0
        except OSError:
            return self.abort()
        if sent < len(data):
            self._unsent += memoryview(data)[sent:]
            self._await_room()

    def close(self) -> None:
        """Sends what waits, says goodbye, and ends."""
        if self._closing or self._gone:
            return
        self._closing = True
        self._linger()
        if not self._unsent:
            self._leave()

    def abort(self) -> None:
        """Ends at once."""
        if self._gone:
            return
        self._gone, self.is_open = True, False
        self._read_no_more()
        self._await_no_room()
        if self._lingering:
            self._lingering.cancel()
        self.tls.close()
        self._user.closed()

    # What waits to be sent

    def _await_room(self) -> None:
        if not self._writes:
            self._writes = True
            self._loop.add_writer(self.tls, self._on_writable)

    def _await_no_room(self) -> None:
        if self._writes:
            self._writes = False
            self._loop.remove_writer(self.tls)

    def _on_writable(self) -> None:
        if not self.is_open and not self._closing:
            self._await_no_room()
            return self._shake_hands()
        try:
            while self._unsent:
                del self._unsent[: self.tls.send(self._unsent)]
        except ssl.SSLWantWriteError:
            return
        except OSError:
            return self.abort()
        self._await_no_room()
        if self._closing:
            return self._leave()
        self._read_more()
        self._user.writable()

    # What comes

    def _read_more(self) -> None:
        if not self._reads and not self._gone:
            self._reads = True
            self._loop.add_reader(self.tls, self._on_readable)

    def _read_no_more(self) -> None:
        if self._reads:
            self._reads = False
            self._loop.remove_reader(self.tls)

    def _on_readable(self) -> None:
        if not self.is_open and not self._closing:
            return self._shake_hands()
        try:
            data = self.tls.recv(_RECORD)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError, InterruptedError):
            return
        except ssl.SSLEOFError:
            return self.abort()
        except ssl.SSLError:
            return self._fail()
        except OSError:
            return self.abort()
        if self._closing:
            if not data:
                self.abort()
            return  # read and thrown away: closing with unread bytes would cut off our last word
        if not data:
            return self.close()
        self._user.received(data)

    def _shake_hands(self) -> None:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLWantWriteError:
            return self._await_room()
        except ssl.SSLEOFError:
            return self.abort()
        except ssl.SSLError as error:
            self._user.refused(error)
            return self._fail()
        except OSError:
            return self.abort()
        self.is_open = True
        self._user.opened()

    # The end

    def _fail(self) -> None:
        """OpenSSL has sent the alert; it shall arrive."""
        if not self._closing:
            self._closing = True
            self._linger()
        self._end_sending()

    def _leave(self) -> None:
        if self.is_open:
            with suppress(OSError):  # it has written its goodbye, and would now wait for the reader's
                self.tls.unwrap()
        self._end_sending()

    def _end_sending(self) -> None:
        self._await_no_room()
        try:
            self.tls.shutdown(socket.SHUT_WR)
        except OSError:
            self.abort()

    def _linger(self) -> None:
        self._lingering = self._loop.call_later(_LINGER_S, self.abort)
