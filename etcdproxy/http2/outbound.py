"""What one connection's calls have to send, cut into DATA frames within the reader's windows. Pure.

A call is asked for messages only while there is room for them, the calls of a connection in turn. All messages of a
call's turn share DATA frames. At most one message of a call is half sent.
"""

from collections.abc import Callable

from etcdproxy.http2.call import Call
from etcdproxy.http2.frames import MAX_WINDOW, PREFIX_BYTES, data_head, message_prefix
from etcdproxy.http2.status import Status

_MAX_TURN = 64 << 10  # bytes of one call, then the others get their turn
_FRAME = 16_384  # what everybody takes
_WINDOW = 65_535  # of a connection, until the reader gives more


class Overflow(Exception):
    """The reader gives more window than HTTP/2 knows."""


class LastFrame:
    """Makes frames, and keeps the last one: what many calls are told at once is framed once."""

    __slots__ = ("_frame", "_message", "_stream")

    def __init__(self) -> None:
        self._frame = self._message = b""
        self._stream = 0

    def make(self, message: bytes, stream: int) -> bytes:
        """A DATA frame with one whole message."""
        if message is not self._message or stream != self._stream:
            head = data_head(PREFIX_BYTES + len(message), stream)
            self._frame = b"".join((head, message_prefix(len(message)), message))
            self._message, self._stream = message, stream
        return self._frame


class Outbound:
    """`window` is what the reader takes on the whole connection, `max_frame` the longest frame it takes.

    `clock` gives the event loop's time; `last` is shared by all connections.
    """

    __slots__ = ("_clock", "_ended", "_last", "_ready", "max_frame", "window")

    def __init__(self, clock: Callable[[], float], last: LastFrame) -> None:
        self._clock = clock
        self._last = last
        self.window = _WINDOW
        self.max_frame = _FRAME
        self._ready: dict[Call, None] = {}  # have window of their own, and perhaps something to send
        self._ended: dict[Call, Status] = {}

    @property
    def has_turn(self) -> bool:
        """Whether there is more that the reader would take now."""
        return bool(self._ended or (self._ready and self.window > 0))

    def wants(self, call: Call) -> None:
        """The call may have something to send."""
        if call.status is not None and call.pending is None:
            self._ended[call] = call.status
        elif call.window > 0:
            self._ready[call] = None
        elif call.since is None:
            call.since = self._clock()

    def forget(self, call: Call) -> None:
        self._ready.pop(call, None)
        self._ended.pop(call, None)

    def credit(self, size: int) -> None:
        """The reader takes so much more on the connection. Raises Overflow."""
        self.window += size
        if self.window > MAX_WINDOW:
            raise Overflow

    def credit_call(self, call: Call, size: int) -> None:
        """The reader takes so much more on the call, less if negative. Raises Overflow."""
        call.window += size
        if call.window > MAX_WINDOW:
            raise Overflow
        if call.since is not None:
            self.wants(call)

    def fill(self, parts: list[bytes | memoryview], room: int) -> list[tuple[Call, Status]]:
        """Adds frames of the calls that are ready. Returns those that have ended: their last frames follow these."""
        ended: list[tuple[Call, Status]] = []
        ready = self._ready
        while self._ended:
            ended.append(self._ended.popitem())
            ready.pop(ended[-1][0], None)  # it may have had something to send
        if not ready:
            return ended
        now = self._clock()
        while ready and room > 0 and self.window > 0:
            call = next(iter(ready))
            del ready[call]
            if call.window > 0:
                room -= self._turn(call, parts, min(room, call.window, self.window, _MAX_TURN), now)
            if call.pending is None and call.status is not None:
                ended.append((call, call.status))
            elif call.since is not None and call.window > 0:
                ready[call] = None
        for call in ready:
            if call.since is None:
                call.since = now
        return ended

    def _turn(self, call: Call, parts: list[bytes | memoryview], budget: int, now: float) -> int:
        """What one call may send now: at most `budget` bytes; returns how many."""
        call.since = now
        if call.pending is None:
            messages = call.source(budget) if call.source is not None else []
            if len(messages) == 1:  # the frequent case
                size = PREFIX_BYTES + len(messages[0])
                if size <= budget and size <= self.max_frame:
                    if size < budget:
                        call.since = None
                    call.window -= size
                    self.window -= size
                    parts.append(self._last.make(messages[0], call.stream))
                    return size
            return self._send(call, parts, messages, budget)
        chunks: list[bytes | memoryview] = []
        sent = _cut(call, call.pending, budget, chunks)
        self._frame(call, parts, chunks, sent)
        return sent + (self._turn(call, parts, budget - sent, now) if sent < budget else 0)

    def _send(self, call: Call, parts: list[bytes | memoryview], messages: list[bytes], budget: int) -> int:
        chunks: list[bytes | memoryview] = []
        left = budget
        for message in messages:
            prefix = message_prefix(len(message))
            length = PREFIX_BYTES + len(message)
            if length <= left:
                chunks += (prefix, message)
                left -= length
            else:
                left -= _cut(call, memoryview(prefix + message), left, chunks)
        if left > 0:
            call.since = None
        self._frame(call, parts, chunks, budget - left)
        return budget - left

    def _frame(self, call: Call, parts: list[bytes | memoryview], chunks: list[bytes | memoryview], size: int) -> None:
        call.window -= size
        self.window -= size
        if 0 < size <= self.max_frame:
            parts.append(data_head(size, call.stream))
            parts += chunks
            return
        whole = memoryview(b"".join(chunks))
        for at in range(0, size, self.max_frame):
            piece = whole[at : at + self.max_frame]
            parts += (data_head(len(piece), call.stream), piece)


def _cut(call: Call, message: memoryview, budget: int, chunks: list[bytes | memoryview]) -> int:
    """Sends as much of a message as fits; the rest stays the call's."""
    chunks.append(message[:budget])
    rest = message[budget:]
    call.pending, call.begun = (rest, True) if rest else (None, False)
    return min(budget, len(message))
