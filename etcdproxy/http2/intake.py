"""The bytes of the other end, cut into the frames that they are. Pure."""

from collections.abc import Iterator
from typing import NamedTuple

from etcdproxy.http2.frames import CONTINUATION, END_HEADERS, HEAD_BYTES, HEADERS, PREFACE, Head, read_head


class FrameTooLong(Exception):
    """The other end announces a longer frame than it may send."""


class Frame(NamedTuple):
    """One frame. `data` is all of it, with its head; `head` None: it is the greeting before the first one.

    `within_headers`: a block of headers is under way, into which no other frame may come.
    """

    head: Head | None
    data: bytes
    within_headers: bool


class Intake:
    """Keeps what is not a whole frame yet. `greets`: the other end is a client, which begins with a greeting."""

    __slots__ = ("_bytes", "_greeted", "_in_headers", "_max_frame")

    def __init__(self, max_frame: int, *, greets: bool = True) -> None:
        self._max_frame = max_frame
        self._bytes = bytearray()
        self._greeted = not greets
        self._in_headers = False

    def cut(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole with these bytes. Raises FrameTooLong."""
        buffer = self._bytes
        buffer += data
        if not self._greeted:
            if len(buffer) < len(PREFACE) and PREFACE.startswith(buffer):
                return
            self._greeted = True
            yield Frame(None, self._take(len(PREFACE)), within_headers=False)
        while len(buffer) >= HEAD_BYTES:
            head = read_head(buffer, 0)
            if head.length > self._max_frame:
                raise FrameTooLong(f"a frame of {head.length} bytes")
            end = HEAD_BYTES + head.length
            if end > len(buffer):
                return
            within_headers = self._in_headers
            if head.kind in (HEADERS, CONTINUATION):
                self._in_headers = not head.flags & END_HEADERS
            yield Frame(head, self._take(end), within_headers)

    def clear(self) -> None:
        self._bytes.clear()

    def _take(self, size: int) -> bytes:
        taken = bytes(self._bytes[:size])
        del self._bytes[:size]
        return taken
