"""One call of a reader: the messages that came, and those that are to go. Its session moves the bytes.

A handler reads with `read` and either answers once (`answer`) or is asked for messages whenever there is room for
them (`pull_from`, `wake`): so nothing waits in a queue for a reader that does not read. To a reader that does, what is
new can be given at once (`push`).
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from grpc import StatusCode

from etcdproxy.http2.frames import PREFIX_BYTES, message_prefix, read_prefix
from etcdproxy.http2.message import Message
from etcdproxy.http2.status import Refused, Status

MAX_REQUEST_BYTES = 64 << 10  # a key and a range end, nothing that a reader asks is bigger
_MAX_WAITING = 64  # messages not read by the handler, then the reader must wait

Source = Callable[[int], list[bytes]]


class Carrier(Protocol):
    """The session, as a call sees it."""

    def wants(self, call: "Call") -> None:
        """The call may have something to send."""

    def push(self, call: "Call", message: Message) -> bool:
        """Sends a message of the call, if nothing is in its way."""

    def open(self, call: "Call") -> None:
        """Sends the headers of the answer."""

    def acknowledge(self, call: "Call") -> None:
        """What the call has received may be followed by more."""

    def reset(self, call: "Call", status: Status) -> None:
        """Ends the call without a proper end."""


class Call:
    """`window` is what the reader can take at once. `since` is when the call, wanting to send, last could; None: it has
    nothing to send, or `wake` said only now that it may have. `messages` and `sent` (bytes) are what was sent so far.
    """

    __slots__ = (
        "_carrier", "_complete", "_gone", "_messages", "_over", "_partial", "_waiter", "address", "answered",
        "begun", "deadline", "messages", "name", "path", "pending", "sent", "since", "source", "status", "stream",
        "task", "unacknowledged", "window",
    )  # fmt: skip

    def __init__(self, carrier: Carrier, stream: int, path: str, *, name: str, address: str, window: int) -> None:
        self.stream = stream
        self.path = path
        self.name = name
        self.address = address
        self.window = window
        self.pending: memoryview | None = None
        self.begun = False  # a part of `pending` is sent
        self.source: Source | None = None
        self.status: Status | None = None
        self.since: float | None = None
        self.messages = 0
        self.sent = 0
        self.unacknowledged = 0
        self.answered = False  # the headers of the answer are sent
        self.task: asyncio.Task[None] | None = None
        self.deadline: asyncio.TimerHandle | None = None
        self._carrier = carrier
        self._partial = bytearray()
        self._messages: deque[bytes] = deque()
        self._complete = False
        self._waiter: asyncio.Future[None] | None = None
        self._over: asyncio.Future[None] | None = None
        self._gone = False

    @property
    def is_full(self) -> bool:
        """The handler has enough to read."""
        return len(self._messages) >= _MAX_WAITING

    @property
    def is_complete(self) -> bool:
        """The reader sends nothing more."""
        return self._complete

    async def read(self) -> bytes | None:
        """The next message; None after the last one."""
        while not self._messages:
            if self._complete:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        message = self._messages.popleft()
        if self.unacknowledged:
            self._carrier.acknowledge(self)
        return message

    async def read_only(self) -> bytes:
        """The one message of a call that has one. Raises Refused if there is none or another one."""
        message = await self.read()
        if message is None or await self.read() is not None:
            raise Refused(StatusCode.INTERNAL, "meshd: this call takes one message")
        return message

    def answer(self, message: bytes) -> None:
        """Sends one message."""
        self._carrier.open(self)
        self.pending = memoryview(message_prefix(len(message)) + message)
        self._carrier.wants(self)

    def pull_from(self, source: Source) -> None:
        """Asks `source` for messages whenever there is room for some bytes; after each `wake` if it gave too few.

        What it gives may be too much by no more than its last message. A message counts with its PREFIX_BYTES.
        """
        self._carrier.open(self)
        self.source = source
        self._carrier.wants(self)

    def push(self, message: Message) -> bool:
        """Sends a message past the source, which must have none of its own. False: not now, `wake` when it has it."""
        return self.source is not None and self._carrier.push(self, message)

    def wake(self) -> None:
        """The source may have something again."""
        if self.source is not None:
            self._carrier.wants(self)

    def finish(self, status: Status, *, at_once: bool = False) -> None:
        """Ends the call: when what was taken is sent, or at once."""
        if self.status is not None:
            return
        self.status, self.source = status, None
        if at_once and self.begun:
            self._carrier.reset(self, status)
        else:
            if at_once:
                self.pending = None
            self._carrier.wants(self)

    async def over(self) -> None:
        """Waits until the call has ended for its reader: what was taken is sent, or nobody wants it."""
        if not self._gone:
            self._over = asyncio.get_running_loop().create_future()
            await self._over

    def cut(self, status: Status) -> None:
        """Ends the call, at once and whatever its handler does; also one whose answer is on its way."""
        if self.status is not None:
            self._carrier.reset(self, status)
        self.finish(status, at_once=True)
        if self.task is not None:
            self.task.cancel()

    def receive(self, data: bytes) -> None:
        """Takes bytes of the reader."""
        if self.status is not None:
            return
        self._partial += data
        while len(self._partial) >= PREFIX_BYTES:
            compressed, length = read_prefix(self._partial)
            if compressed:
                return self.cut(Status(StatusCode.UNIMPLEMENTED, "meshd: compressed messages are not read"))
            if length > MAX_REQUEST_BYTES:
                text = f"meshd: a request of {length} bytes, more than {MAX_REQUEST_BYTES}"
                return self.cut(Status(StatusCode.RESOURCE_EXHAUSTED, text))
            end = PREFIX_BYTES + length
            if len(self._partial) < end:
                return
            self._messages.append(bytes(self._partial[PREFIX_BYTES:end]))
            del self._partial[:end]
            self._wake_reader()

    def complete(self) -> None:
        """The reader sends nothing more."""
        self._complete = True
        self._wake_reader()

    def forget(self) -> None:
        """The call is over for its reader; nothing more is sent."""
        self.source = self.pending = None
        self._gone = True
        if self._over is not None and not self._over.done():
            self._over.set_result(None)
        if self.deadline is not None:
            self.deadline.cancel()

    def _wake_reader(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
