"""One HTTP/2 connection of a reader: bytes in, calls out; calls in, bytes out. It does no input or output itself.

What is rare (settings, headers, resets, errors) is h2's. What is frequent is done here: DATA frames to the reader, and
the reader's window updates and pings, of which h2 hears nothing. Whatever is ready at one turn of the event loop
leaves in one write.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from grpc import StatusCode

from etcdproxy.http2 import frames
from etcdproxy.http2.call import Call
from etcdproxy.http2.frames import HEAD_BYTES
from etcdproxy.http2.intake import Frame, FrameTooLong, Intake
from etcdproxy.http2.machine import MAX_FRAME, make_machine
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
from etcdproxy.http2.turn import Turn

logger = logging.getLogger(__name__)

_MAX_RESETS = 5_000  # calls that a reader may give up between two looks at it
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

    def abort(self) -> None:
        """Ends the connection at once."""


class Session:
    """The calls of one connection. `serve` runs a call to its end. `refusal`: what every call is answered, if any.

    `name` is that of the reader's certificate, `address` where it comes from.
    """

    __slots__ = (
        "_calls", "_control", "_control_due", "_draining", "_flush_due", "_intake", "_link", "_loop", "_machine",
        "_out", "_over", "_resets", "_serve", "_turn", "address", "name", "refusal",
    )  # fmt: skip

    def __init__(
        self,
        link: Link,
        serve: Callable[[Call], Coroutine[Any, Any, None]],
        turn: Turn,
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
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self._machine = make_machine()
        self._out = Outbound(self._loop.time, turn.last_frame)
        self._control = bytearray()  # frames that wait for the next flush
        self._control_due = False  # h2 or `_control` may have something
        self._calls: dict[int, Call] = {}
        self._intake = Intake(MAX_FRAME)
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
        try:
            for frame in self._intake.cut(data):
                self._read(frame)
                if self._over:
                    break
        except h2.exceptions.ProtocolError as error:
            self._fail(str(error))
        except FrameTooLong as error:
            self._complain(h2.errors.ErrorCodes.FRAME_SIZE_ERROR, str(error))
        except Overflow:
            self._complain(h2.errors.ErrorCodes.FLOW_CONTROL_ERROR, "more window than there is")
        self._schedule()

    def flush(self) -> None:
        """Sends what is ready, as far as there is room."""
        self.send(self.gather())

    def gather(self) -> bytes:
        """What is ready, as far as there is room; to be sent at once."""
        self._flush_due = False
        parts: list[bytes | memoryview] = []
        if self._control_due:
            self._take_control(parts)
        if not self._over:
            ended = self._out.fill(parts, self._link.room())
            if ended:
                for call, status in ended:
                    self._end(call, status)
                self._take_control(parts)
        return b"".join(parts)

    def send(self, data: bytes) -> None:
        """Writes what was gathered, and looks whether there is more, or nothing ever again."""
        if data:
            self._link.write(data)
        if self._out.has_turn and self._link.room() > 0:
            self._flush_later()  # the link took all: it will not call
        if self._over or (self._draining and not self._calls):
            self._link.close()

    def lost(self) -> None:
        """The connection is gone."""
        self._over = True
        for call in list(self._calls.values()):
            self._forget(call)
            if call.task is not None:
                call.task.cancel()

    def abort(self) -> None:
        """Ends the connection at once."""
        self._link.abort()

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
            self._flush_later()

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

    def _read(self, frame: Frame) -> None:
        if frame.within_headers or frame.head is None or not self._read_frequent(frame.head, frame.data):
            for event in self._machine.receive_data(frame.data):
                self._handle(event)

    def _read_frequent(self, head: frames.Head, data: bytes) -> bool:
        """Handles a window update, a ping or a goaway; False for all else and for what h2 shall complain about."""
        if head.kind == frames.WINDOW_UPDATE and head.length == 4 and (size := frames.read_number(data, HEAD_BYTES)):
            if not head.stream:
                self._out.credit(size)
            elif (call := self._calls.get(head.stream)) is not None:
                self._out.credit_call(call, size)
            return True
        if head.kind == frames.PING and head.length == 8 and not head.stream:
            if not head.flags & frames.ACK:
                self._control += frames.ping_ack(data[HEAD_BYTES:])
            return True
        if head.kind == frames.GOAWAY and head.length >= 8 and not head.stream:
            self._draining = True  # it wants no new calls; those that are open go on
            return True
        return False

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
        window = event.changed_settings.get(h2.settings.SettingCodes.INITIAL_WINDOW_SIZE)
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
        self._control_due = True
        self._flush_later()

    def _flush_later(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._turn.add(self)

    def _take_control(self, parts: list[bytes | memoryview]) -> None:
        self._control_due = False
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

    def _complain(self, code: int, reason: str) -> None:
        self._control += frames.goaway(self._last_stream, code)
        self._fail(reason)

    def _fail(self, reason: str) -> None:
        logger.info("connection is no HTTP/2", extra={"peer": self.name, "address": self.address, "reason": reason})
        self._over = True
        self._intake.clear()
