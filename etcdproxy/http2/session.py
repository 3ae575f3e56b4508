"""One HTTP/2 connection of a reader: bytes in, calls out; calls in, bytes out. It does no input or output itself.

What is rare (settings, headers, resets, errors) is h2's. What is frequent is done here: DATA frames to the reader, and
the reader's window updates and pings, of which h2 hears nothing. Whatever is ready at one turn of the event loop
leaves in one write.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from grpc import StatusCode

from etcdproxy.http2 import frames
from etcdproxy.http2.call import Call
from etcdproxy.http2.frames import HEAD_BYTES, PREFACE
from etcdproxy.http2.outbound import Outbound, Overflow
from etcdproxy.http2.status import (
    ANSWER,
    NOT_GRPC,
    Headers,
    Status,
    grpc_timeout,
    is_grpc,
    reset_code,
    trailers,
)

logger = logging.getLogger(__name__)

_MAX_STREAMS = 1_000  # open calls of one connection
_MAX_HEADER_BYTES = 16 << 10
_WINDOW = 128 << 10  # what a call may send before it is acknowledged
_CONNECTION_WINDOW = 1 << 20
_MAX_FRAME = 16 << 10
_MAX_RESETS = 5_000  # calls that a reader may give up between two looks at it
_DEFAULT_WINDOW = 65_535
_Code = h2.settings.SettingCodes
_SETTINGS = {
    _Code.MAX_CONCURRENT_STREAMS: _MAX_STREAMS,
    _Code.INITIAL_WINDOW_SIZE: _WINDOW,
    _Code.MAX_HEADER_LIST_SIZE: _MAX_HEADER_BYTES,
    _Code.MAX_FRAME_SIZE: _MAX_FRAME,
}
_CONFIG = h2.config.H2Configuration(
    client_side=False,
    header_encoding=False,
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)
_NO_ERROR = h2.errors.ErrorCodes.NO_ERROR
_CALM = h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
_TOO_LATE = Status(StatusCode.DEADLINE_EXCEEDED, "meshd: not answered in time")
_STOPS = Status(StatusCode.UNAVAILABLE, "meshd: this proxy stops, go to another one")


class Link(Protocol):
    """Where the bytes go. It calls `flush` when there is room again."""

    def room(self) -> int:
        """How many bytes it takes now."""

    def write(self, data: bytes) -> None: ...

    def close(self) -> None:
        """Sends what it has and ends the connection."""


class _Machine(h2.connection.H2Connection):
    MAX_CLOSED_STREAMS = 1_000  # of which it remembers how they ended


class Session:
    """The calls of one connection. `serve` runs a call to its end. `refusal`: what every call is answered, if any.

    `name` is that of the reader's certificate, `address` where it comes from.
    """

    def __init__(
        self,
        link: Link,
        serve: Callable[[Call], Coroutine[Any, Any, None]],
        *,
        name: str = "",
        address: str = "",
        refusal: Status | None = None,
    ) -> None:
        self.name = name
        self.address = address
        self.refusal = refusal
        self._link = link
        self._serve = serve
        self._loop = asyncio.get_running_loop()
        self._machine = _Machine(_CONFIG)
        self._machine.local_settings = h2.settings.Settings(client=False, initial_values=_SETTINGS)
        self._machine.decoder.max_header_list_size = _MAX_HEADER_BYTES
        self._machine.initiate_connection()
        self._machine.increment_flow_control_window(_CONNECTION_WINDOW - _DEFAULT_WINDOW)
        self._out = Outbound(self._loop.time)
        self._control = bytearray()  # frames that wait for the next flush
        self._calls: dict[int, Call] = {}
        self._input = bytearray()
        self._greeted = False
        self._in_headers = False
        self._flush_due = False
        self._draining = False
        self._over = False
        self._resets = 0
        self._schedule()

    @property
    def calls(self) -> int:
        return len(self._calls)

    def receive(self, data: bytes) -> None:
        """Takes bytes of the reader. What is no HTTP/2 ends the connection."""
        if self._over:
            return
        self._input += data
        try:
            self._read_frames()
        except h2.exceptions.ProtocolError as error:
            self._fail(str(error))
        except Overflow:
            self._control += frames.goaway(self._last_stream, h2.errors.ErrorCodes.FLOW_CONTROL_ERROR)
            self._fail("more window than there is")
        self._schedule()

    def flush(self) -> None:
        """Sends what is ready, as far as there is room."""
        self._flush_due = False
        parts: list[bytes | memoryview] = []
        self._take_control(parts)
        if not self._over:
            for call, status in self._out.fill(parts, self._link.room()):
                self._end(call, status)
                self._take_control(parts)
        if parts:
            self._link.write(b"".join(parts))
        if self._out.has_turn and self._link.room() > 0:
            self._schedule()  # the link took all: it will not call
        if self._over or (self._draining and not self._calls):
            self._link.close()

    def lost(self) -> None:
        """The connection is gone."""
        self._over = True
        for call in list(self._calls.values()):
            self._forget(call)
            if call.task is not None:
                call.task.cancel()

    def drain(self, code: int = _NO_ERROR, reason: bytes = b"") -> None:
        """Says that no call will be taken any more, ends those that go on and on, and closes after the others."""
        if self._draining or self._over:
            return
        self._draining = True
        self._control += frames.goaway(self._last_stream, code, reason)
        for call in list(self._calls.values()):
            if call.source is not None:
                call.cut(_STOPS)
        self._schedule()

    def ping(self) -> None:
        self._control += frames.ping()
        self._schedule()

    def look(self) -> None:
        """To be called now and then: a reader that opens and gives up calls by the thousand is sent away."""
        if self._resets > _MAX_RESETS:
            self.drain(_CALM, b"too many calls given up")
        self._resets = 0

    # What calls ask for

    def wants(self, call: Call) -> None:
        if call.stream in self._calls:
            self._out.wants(call)
            self._schedule()

    def open(self, call: Call) -> None:
        if not call.answered and call.stream in self._calls:
            call.answered = True
            self._machine.send_headers(call.stream, ANSWER)
            self._schedule()

    def acknowledge(self, call: Call) -> None:
        size, call.unacknowledged = call.unacknowledged, 0
        if not self._over:
            self._machine.acknowledge_received_data(size, call.stream)
            self._schedule()

    def reset(self, call: Call, status: Status) -> None:
        if call.stream in self._calls:
            self._machine.reset_stream(call.stream, reset_code(status))
            self._forget(call)
            self._schedule()

    # What is read

    def _read_frames(self) -> None:
        buffer, at = self._input, 0
        if not self._greeted:
            if len(buffer) < len(PREFACE) and PREFACE.startswith(buffer):
                return
            self._machine.receive_data(bytes(buffer[: len(PREFACE)]))
            self._greeted, at = True, len(PREFACE)
        while not self._over and len(buffer) - at >= HEAD_BYTES:
            head = frames.read_head(buffer, at)
            end = at + HEAD_BYTES + head.length
            if head.length > _MAX_FRAME:
                self._control += frames.goaway(self._last_stream, h2.errors.ErrorCodes.FRAME_SIZE_ERROR)
                return self._fail(f"a frame of {head.length} bytes")
            if end > len(buffer):
                break
            if self._in_headers or not self._read_frequent(head, buffer, at + HEAD_BYTES):
                self._track_headers(head)
                for event in self._machine.receive_data(bytes(buffer[at:end])):
                    self._handle(event)
            at = end
        del buffer[:at]

    def _read_frequent(self, head: frames.Head, buffer: bytearray, at: int) -> bool:
        """Handles a window update, a ping or a goaway; False for all else and for what h2 shall complain about."""
        if head.kind == frames.WINDOW_UPDATE and head.length == 4 and (size := frames.read_number(buffer, at)):
            if not head.stream:
                self._out.credit(size)
            elif (call := self._calls.get(head.stream)) is not None:
                self._out.credit_call(call, size)
            return True
        if head.kind == frames.PING and head.length == 8 and not head.stream:
            if not head.flags & frames.ACK:
                self._control += frames.ping_ack(bytes(buffer[at : at + 8]))
            return True
        if head.kind == frames.GOAWAY and head.length >= 8 and not head.stream:
            self._draining = True  # it wants no new calls; those that are open go on
            return True
        return False

    def _track_headers(self, head: frames.Head) -> None:
        if head.kind in (frames.HEADERS, frames.CONTINUATION):
            self._in_headers = not head.flags & frames.END_HEADERS

    def _handle(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self._take_call(event.stream_id, dict(event.headers))
        elif isinstance(event, h2.events.DataReceived):
            self._take_data(event)
        elif isinstance(event, h2.events.StreamEnded):
            if (call := self._calls.get(event.stream_id)) is not None:
                call.complete()
        elif isinstance(event, h2.events.StreamReset):
            self._resets += 1
            self._give_up(event.stream_id)
        elif isinstance(event, h2.events.RemoteSettingsChanged):
            self._take_settings(event)

    def _take_settings(self, event: h2.events.RemoteSettingsChanged) -> None:
        self._out.max_frame = self._machine.max_outbound_frame_size
        window = event.changed_settings.get(_Code.INITIAL_WINDOW_SIZE)
        if window is not None:
            difference = window.new_value - (window.original_value or 0)
            for call in self._calls.values():
                self._out.credit_call(call, difference)

    def _take_call(self, stream: int, headers: dict[bytes, bytes]) -> None:
        if self._draining:
            return self._machine.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
        path = headers.get(b":path", b"").decode(errors="replace")
        window = self._machine.remote_settings.initial_window_size
        call = Call(self, stream, path, name=self.name, address=self.address, window=window)
        self._calls[stream] = call
        if not is_grpc(headers):
            self._machine.send_headers(stream, NOT_GRPC, end_stream=True)
            return self._close_stream(call)
        if self.refusal is not None:
            call.finish(self.refusal)
            return self.drain(_CALM, self.refusal.details.encode())
        call.task = self._loop.create_task(self._serve(call))
        timeout = grpc_timeout(headers)
        if timeout is not None:
            call.deadline = self._loop.call_later(timeout, call.cut, _TOO_LATE)

    def _take_data(self, event: h2.events.DataReceived) -> None:
        call = self._calls.get(event.stream_id)
        if call is None:
            return self._machine.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        call.unacknowledged += event.flow_controlled_length
        call.receive(event.data)
        if not call.is_full:
            self.acknowledge(call)

    def _give_up(self, stream: int) -> None:
        call = self._calls.get(stream)
        if call is not None:
            self._forget(call)
            if call.task is not None:
                call.task.cancel()

    # What is sent

    @property
    def _last_stream(self) -> int:
        return self._machine.highest_inbound_stream_id

    def _schedule(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self.flush)

    def _take_control(self, parts: list[bytes | memoryview]) -> None:
        if made := self._machine.data_to_send():
            parts.append(made)
        if self._control:
            parts.append(bytes(self._control))
            self._control.clear()

    def _end(self, call: Call, status: Status) -> None:
        headers: Headers = trailers(status)
        self._machine.send_headers(call.stream, headers if call.answered else ANSWER + headers, end_stream=True)
        self._close_stream(call)

    def _close_stream(self, call: Call) -> None:
        """Our side is closed; a reader that still sends is told not to."""
        if not call.is_complete:
            self._machine.reset_stream(call.stream, _NO_ERROR)
        self._forget(call)

    def _forget(self, call: Call) -> None:
        self._calls.pop(call.stream, None)
        self._out.forget(call)
        call.forget()

    def _fail(self, reason: str) -> None:
        logger.info("connection is no HTTP/2", extra={"peer": self.name, "address": self.address, "reason": reason})
        self._over = True
        self._input.clear()
