"""One HTTP/2 connection of a reader: bytes in, calls out; calls in, bytes out. It does no input or output itself.

What the reader says is read in `inbound.py`; messages to it are put into frames in `outbound.py`, all else in
`control.py`. Whatever is ready at one turn of the event loop leaves in one write.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import h2.errors
from grpc import StatusCode

from etcdproxy.http2.call import Call
from etcdproxy.http2.control import Control
from etcdproxy.http2.frames import Chunk
from etcdproxy.http2.inbound import Inbound, Violation
from etcdproxy.http2.message import Message
from etcdproxy.http2.outbound import Outbound
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
        "_calls", "_control", "_draining", "_flush_due", "_inbound", "_link", "_loop", "_out", "_over", "_resets",
        "_serve", "_turn", "address", "name", "refusal", "unsettled", "write",
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
        self.write = link.write
        self._link = link
        self._serve = serve
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self._control = Control()
        self._out = Outbound(self._loop.time)
        self._calls: dict[int, Call] = {}
        self._inbound = Inbound(self._control, self)
        self._flush_due = False
        self._draining = False
        self._over = False
        self._resets = 0
        self.unsettled = False  # `settle` is to be called when what was gathered is written
        self._flush_later()

    @property
    def calls(self) -> int:
        return len(self._calls)

    def receive(self, data: bytes) -> None:
        """Takes bytes of the reader. What is no HTTP/2 ends the connection."""
        if self._over:
            return
        try:
            self._inbound.take(data)
        except Violation as violation:
            self._fail(violation)
        if self._control.due or self._out.has_turn or self._is_last:
            self._flush_later()

    def flush(self) -> None:
        """Sends what is ready, as far as there is room."""
        if data := self.gather():
            self.write(data)
        if self.unsettled:
            self.settle()

    def gather(self) -> bytes:
        """What is ready, as far as there is room; to be written at once."""
        self._flush_due = False
        parts = self._out.take_pushed()
        if self._control.due or self._out.has_calls or self._over or self._draining:
            self._gather_more(parts)
        return b"".join(parts)

    def settle(self) -> None:
        """What was gathered is written: looks whether there is more, or nothing ever again."""
        self.unsettled = False
        if self._out.has_turn and self._link.room() > 0:
            self._flush_later()  # the link took all: it will not call
        if self._is_last:
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
        self._control.say_goodbye(code, reason)
        for call in list(self._calls.values()):
            if call.source is not None:
                call.cut(_STOPS)
        self._flush_later()

    def ping(self) -> None:
        self._control.ping()
        self._flush_later()

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

    def push(self, call: Call, message: Message) -> bool:
        if self._control.due or not self._out.push(call, message, self._link.room()):
            return False
        self._flush_later()
        return True

    def open(self, call: Call) -> None:
        if not call.answered and call.stream in self._calls:
            call.answered = True
            self._control.send_headers(call.stream, ANSWER)
            self._flush_later()

    def acknowledge(self, call: Call) -> None:
        size, call.unacknowledged = call.unacknowledged, 0
        if not self._over:
            self._control.acknowledge(call.stream, size)
            self._flush_later()

    def reset(self, call: Call, status: Status) -> None:
        if call.stream in self._calls:
            self._control.reset(call.stream, reset_code(status))
            self._forget(call)
            self._flush_later()

    # What the reader says

    def widen(self, stream: int, size: int) -> None:
        if not stream:
            self._out.credit(size)
        elif (call := self._calls.get(stream)) is not None:
            self._out.credit_call(call, size)

    def take_settings(self, widened: int) -> None:
        self._out.max_frame = self._control.max_frame
        for call in self._calls.values():
            self._out.credit_call(call, widened)

    def stop_opening(self) -> None:
        self._draining = True

    def open_call(self, stream: int, headers: dict[bytes, bytes]) -> None:
        if self._draining:
            return self._control.reset(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
        path = headers.get(b":path", b"").decode(errors="replace")
        call = Call(self, stream, path, name=self.name, address=self.address, window=self._control.window)
        self._calls[stream] = call
        if not is_grpc(headers):
            self._control.send_headers(stream, NOT_GRPC, end_stream=True)
            return self._close_stream(call)
        if self.refusal is not None:
            call.finish(self.refusal)
            return self.drain(_CALM, self.refusal.details.encode())
        call.task = self._loop.create_task(self._serve(call))
        timeout = grpc_timeout(headers)
        if timeout is not None:
            call.deadline = self._loop.call_later(timeout, call.cut, _TOO_LATE)

    def take_data(self, stream: int, data: bytes, size: int) -> None:
        call = self._calls.get(stream)
        if call is None:
            return self._control.acknowledge(stream, size)
        call.unacknowledged += size
        call.receive(data)
        if not call.is_full:
            self.acknowledge(call)

    def complete_call(self, stream: int) -> None:
        call = self._calls.get(stream)
        if call is not None:
            call.complete()

    def give_up_call(self, stream: int) -> None:
        self._resets += 1
        call = self._calls.get(stream)
        if call is not None:
            self._forget(call)
            if call.task is not None:
                call.task.cancel()

    # What is sent

    @property
    def _is_last(self) -> bool:
        """Nothing comes after what is sent now."""
        return self._over or (self._draining and not self._calls)

    def _flush_later(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._turn.add(self)

    def _gather_more(self, parts: list[Chunk]) -> None:
        """What there is beside messages that were pushed."""
        self.unsettled = True
        if self._control.due:
            parts.append(self._control.take())
        if self._over:
            return
        for call, status in self._out.fill(parts, self._link.room() - sum(map(len, parts))):
            self._end(call, status)
        if self._control.due:
            parts.append(self._control.take())

    def _end(self, call: Call, status: Status) -> None:
        headers: Headers = trailers(status)
        self._control.send_headers(call.stream, headers if call.answered else ANSWER + headers, end_stream=True)
        self._close_stream(call)

    def _close_stream(self, call: Call) -> None:
        """Our side is closed; a reader that still sends is told not to."""
        if not call.is_complete:
            self._control.reset(call.stream, _NO_ERROR)
        self._forget(call)

    def _forget(self, call: Call) -> None:
        self._calls.pop(call.stream, None)
        self._out.forget(call)
        call.forget()

    def _fail(self, violation: Violation) -> None:
        extra = {"peer": self.name, "address": self.address, "reason": str(violation)}
        logger.info("connection is no HTTP/2", extra=extra)
        if violation.code is not None:
            self._control.say_goodbye(violation.code)
        self._over = True
