"""What one connection's calls have to send, cut into DATA frames within the reader's windows. Pure.

A call is asked for messages only while there is room for them, the calls of a connection in turn. All messages of a
call's turn share DATA frames. At most one message of a call is half sent.
"""

from collections.abc import Callable

from etcdproxy.http2.call import Call
from etcdproxy.http2.frames import MAX_WINDOW, PREFIX_BYTES, SAFE_FRAME, Chunk, data_frames, message_prefix
from etcdproxy.http2.message import Message
from etcdproxy.http2.status import Status

_MAX_TURN = 64 << 10  # bytes of one call, then the others get their turn
_WINDOW = 65_535  # of a connection, until the reader gives more


class Overflow(Exception):
    """The reader gives more window than HTTP/2 knows."""


class Outbound:
    """`window` is what the reader takes on the whole connection, `max_frame` the longest frame it takes.

    `clock` gives the event loop's time.
    """

    __slots__ = ("_clock", "_ended", "_pushed", "_pushed_bytes", "_ready", "max_frame", "window")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.window = _WINDOW
        self.max_frame = SAFE_FRAME
        self._pushed: list[Chunk] = []  # frames, not taken yet
        self._pushed_bytes = 0
        self._ready: dict[Call, None] = {}  # have window of their own, and perhaps something to send
        self._ended: dict[Call, Status] = {}

    @property
    def has_calls(self) -> bool:
        """Whether `fill` has something to look at."""
        return bool(self._ended or self._ready)

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

    def push(self, call: Call, message: Message, room: int) -> bool:
        """Puts a message of a call before all that `fill` will add; False if something of the call waits, or it is too
        big now."""
        size = message.size
        pushed = self._pushed_bytes + size
        if self._ready or call.since is not None or size > call.window or size > self.window or pushed > room:
            return False
        self._pushed.append(message.frames(call.stream))
        self._pushed_bytes = pushed
        self._count(call, 1, size)
        return True

    def take_pushed(self) -> list[Chunk]:
        """The frames that were pushed; they go first."""
        pushed, self._pushed, self._pushed_bytes = self._pushed, [], 0
        return pushed

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

    def fill(self, parts: list[Chunk], room: int) -> list[tuple[Call, Status]]:
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
            elif call.since is None:  # the reader has made its windows smaller meanwhile
                call.since = now
            if call.pending is None and call.status is not None:
                ended.append((call, call.status))
            elif call.since is not None and call.window > 0:
                ready[call] = None
        for call in ready:
            if call.since is None:
                call.since = now
        return ended

    def _turn(self, call: Call, parts: list[Chunk], budget: int, now: float) -> int:
        """What one call may send now: at most `budget` bytes; returns how many."""
        call.since = now
        if call.pending is None:
            return self._send(call, parts, call.source(budget) if call.source is not None else [], budget)
        chunks: list[Chunk] = []
        sent = _cut(call, call.pending, budget, chunks)
        parts += data_frames(chunks, sent, call.stream, self.max_frame)
        self._count(call, 0, sent)
        return sent + (self._turn(call, parts, budget - sent, now) if sent < budget else 0)

    def _send(self, call: Call, parts: list[Chunk], messages: list[bytes], budget: int) -> int:
        chunks: list[Chunk] = []
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
        parts += data_frames(chunks, budget - left, call.stream, self.max_frame)
        self._count(call, len(messages), budget - left)
        return budget - left

    def _count(self, call: Call, messages: int, size: int) -> None:
        """`size` bytes are sent, in which so many messages begin."""
        call.window -= size
        self.window -= size
        call.messages += messages
        call.sent += size


def _cut(call: Call, message: memoryview, budget: int, chunks: list[Chunk]) -> int:
    """Sends as much of a message as fits; the rest stays the call's."""
    chunks.append(message[:budget])
    rest = message[budget:]
    call.pending, call.begun = (rest, True) if rest else (None, False)
    return min(budget, len(message))
