"""One call at etcd that goes on and on: the client's side of HTTP/2, for messages that come.

grpc.aio hands each message from thread to thread, which costs some 0.15 ms (ADR 14). As in `session.py`, what is rare
is h2's, and of the frequent (DATA frames) h2 hears nothing.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
from grpc import StatusCode

from etcdproxy.http2 import frames
from etcdproxy.http2.frames import HEAD_BYTES, PREFIX_BYTES
from etcdproxy.http2.intake import Frame, FrameTooLong, Intake
from etcdproxy.http2.machine import MAX_FRAME

PING_S = 10.0  # of silence, then it is asked whether it still lives
SILENCE_S = 15.0
_LOOK_S = 2.5
_CONNECT_S = 10.0
_STREAM = 1
_WINDOW = 16 << 20  # what may be on its way
_CREDIT = 1 << 20  # that has come before more is asked for
_HELD_BYTES = 16 << 20  # come and not read yet, then nothing more is taken from the network
_DEFAULT_WINDOW = 65_535
_CODES = {str(code.value[0]): code.name for code in StatusCode}
_CONFIG = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
_SETTINGS = {
    h2.settings.SettingCodes.ENABLE_PUSH: 0,
    h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW,
    h2.settings.SettingCodes.MAX_FRAME_SIZE: MAX_FRAME,
}


class CallLost(Exception):
    """The call has ended, or never began; str(error) says why."""


class Following(asyncio.Protocol):
    """The call and its connection, which carries nothing else."""

    def __init__(self, authority: str, path: str, *, secure: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._headers = [
            (":method", "POST"),
            (":scheme", "https" if secure else "http"),
            (":path", path),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "meshd"),
        ]
        self._machine = h2.connection.H2Connection(_CONFIG)
        self._intake = Intake(MAX_FRAME, greets=False)
        self._partial = bytearray()
        self._messages: deque[bytes] = deque()
        self._held = 0
        self._paused = False
        self._uncredited = 0
        self._lost = ""
        self._waiter: asyncio.Future[None] | None = None
        self._heard = self._loop.time()
        self._asked = False
        self._looking: asyncio.TimerHandle | None = None

    def send(self, message: bytes) -> None:
        """Sends one message, much smaller than what every server takes at once."""
        self._machine.send_data(_STREAM, frames.message_prefix(len(message)) + message)
        self._flush()

    @property
    def has_come(self) -> bool:
        """Whether a message is there already."""
        return bool(self._messages)

    async def read(self) -> bytes:
        """The next message. Raises CallLost after the last one."""
        while not self._messages:
            if self._lost:
                raise CallLost(self._lost)
            self._waiter = self._loop.create_future()
            await self._waiter
        message = self._messages.popleft()
        self._held -= len(message)
        if self._paused and self._held <= _HELD_BYTES // 2 and self._transport is not None:
            self._paused = False
            self._heard = self._loop.time()
            self._transport.resume_reading()
        return message

    def end(self) -> None:
        """Leaves the connection; no message is awaited any more."""
        if self._looking is not None:
            self._looking.cancel()
        self._lose("left")
        if self._transport is not None:
            self._transport.abort()

    # What the connection tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        machine = self._machine
        machine.local_settings = h2.settings.Settings(client=True, initial_values=_SETTINGS)
        machine.initiate_connection()
        machine.increment_flow_control_window(_WINDOW - _DEFAULT_WINDOW)
        machine.send_headers(_STREAM, self._headers)
        self._flush()
        self._look()

    def connection_lost(self, error: Exception | None) -> None:
        self._lose(f"the connection has ended: {error}" if error else "the connection has ended")

    def data_received(self, data: bytes) -> None:
        self._heard, self._asked = self._loop.time(), False
        try:
            for frame in self._intake.cut(data):
                self._take(frame)
        except (h2.exceptions.ProtocolError, FrameTooLong) as error:
            self._lose(f"no HTTP/2: {error}")
        self._flush()

    def _take(self, frame: Frame) -> None:
        if not frame.within_headers:
            if frame.kind == frames.DATA and not frame.flags and frame.stream == _STREAM:
                return self._take_data(frame.data)
            if frame.kind == frames.GOAWAY:
                return self._lose("etcd ends the connection")
        for event in self._machine.receive_data(frame.data):
            self._handle(event)

    def _take_data(self, data: bytes) -> None:
        partial = self._partial
        partial += memoryview(data)[HEAD_BYTES:]
        while len(partial) >= PREFIX_BYTES:
            compressed, length = frames.read_prefix(partial)
            if compressed:
                return self._lose("a compressed message")
            end = PREFIX_BYTES + length
            if len(partial) < end:
                break
            self._messages.append(bytes(memoryview(partial)[PREFIX_BYTES:end]))
            del partial[:end]
            self._held += length
            self._wake()
        self._uncredited += len(data) - HEAD_BYTES
        if self._uncredited >= _CREDIT and self._transport is not None:
            size, self._uncredited = self._uncredited, 0
            self._transport.write(frames.window_update(0, size) + frames.window_update(_STREAM, size))
        if self._held > _HELD_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _handle(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
            headers = {str(name): str(value) for name, value in event.headers or []}
            if (status := headers.get("grpc-status")) is not None:
                self._lose(f"{_CODES.get(status, status)}: {headers.get('grpc-message', '')}")
            elif headers.get(":status", "200") != "200":
                self._lose(f"HTTP status {headers[':status']}")
        elif isinstance(event, h2.events.StreamReset | h2.events.StreamEnded):
            self._lose("etcd ended the call")

    # Whether it still lives

    def _look(self) -> None:
        silent = 0.0 if self._paused else self._loop.time() - self._heard
        if silent >= SILENCE_S:
            self._lose(f"no answer for {SILENCE_S:.0f} s")
        elif silent >= PING_S and not self._asked and self._transport is not None:
            self._asked = True
            self._transport.write(frames.ping())
        self._looking = self._loop.call_later(_LOOK_S, self._look)

    def _lose(self, why: str) -> None:
        self._lost = self._lost or why
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _flush(self) -> None:
        if self._transport is not None and (data := self._machine.data_to_send()):
            self._transport.write(data)


@asynccontextmanager
async def open_call(target: str, path: str, context: ssl.SSLContext | None) -> AsyncIterator[Following]:
    """Connects to `host:port`, in clear without a context, and begins the call. Raises CallLost."""
    host, _, port = target.rpartition(":")
    host = host.strip("[]")
    call = Following(target, path, secure=context is not None)
    try:
        try:
            async with asyncio.timeout(_CONNECT_S):
                await asyncio.get_running_loop().create_connection(
                    lambda: call, host, int(port), ssl=context, server_hostname=host if context else None
                )
        except (OSError, TimeoutError) as error:
            raise CallLost(f"UNAVAILABLE: {error or 'no connection in time'}") from error
        yield call
    finally:
        call.end()
