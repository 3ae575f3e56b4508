"""The bytes of the other end, cut into the frames that they are. Pure."""

from collections.abc import Iterator
from typing import NamedTuple

from etcdproxy.http2.frames import CONTINUATION, END_HEADERS, HEAD_BYTES, HEADERS, PREFACE, read_head

GREETING = -1  # what stands where a frame has its kind


class FrameTooLong(Exception):
    """The other end announces a longer frame than it may send."""


class Frame(NamedTuple):
    """One frame, or the greeting before the first one. `data` is all of it, with its head.

    `within_headers`: a block of headers is under way, into which no other frame may come.
    """

    kind: int
    flags: int
    stream: int
    data: bytes
    within_headers: bool = False


class Intake:
    """Keeps what is not a whole frame yet. `greets`: the other end is a client, which begins with a greeting."""

    __slots__ = ("_greeted", "_in_headers", "_max_frame", "_rest")

    def __init__(self, max_frame: int, *, greets: bool = True) -> None:
        self._max_frame = max_frame
        self._rest = b""
        self._greeted = not greets
        self._in_headers = False

    def cut(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole with these bytes. Raises FrameTooLong when its turn comes."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        at, size = 0, len(data)
        if not self._greeted:
            if size < len(PREFACE) and PREFACE.startswith(data):
                self._rest = data
                return
            self._greeted = True
            at = len(PREFACE)
            yield Frame(GREETING, 0, 0, data[:at])
        while at + HEAD_BYTES <= size:
            length, kind, flags, stream = read_head(data, at)
            if length > self._max_frame:
                raise FrameTooLong(f"a frame of {length} bytes")
            end = at + HEAD_BYTES + length
            if end > size:
                break
            within_headers = self._in_headers
            if kind in (HEADERS, CONTINUATION):
                self._in_headers = not flags & END_HEADERS
            yield Frame(kind, flags, stream, data[at:end], within_headers)
            at = end
        self._rest = data[at:]
