"""The few HTTP/2 and gRPC bytes that are put together here and not in h2: DATA frames, pings, window updates. Pure."""

import struct
from collections.abc import Sequence

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES = 9
PREFIX_BYTES = 5
MAX_WINDOW = (1 << 31) - 1
SAFE_FRAME = 16_384  # a frame of this length everybody takes

DATA, HEADERS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 6, 7, 8, 9
ACK = END_STREAM = 1
END_HEADERS = 4

_HEAD = struct.Struct(">HBBBI")  # length in 24 bits, type, flags, stream
_PREFIX = struct.Struct(">BI")  # of a gRPC message: whether it is compressed, its length
_NUMBER = struct.Struct(">I")
_PING_ACK = _HEAD.pack(0, 8, PING, ACK, 0)
_PING = _HEAD.pack(0, 8, PING, 0, 0) + bytes(8)


Chunk = bytes | memoryview


def read_head(buffer: bytes | bytearray, at: int) -> tuple[int, int, int, int]:
    """Length, kind, flags and stream of the frame at this offset, where HEAD_BYTES must be."""
    high, low, kind, flags, stream = _HEAD.unpack_from(buffer, at)
    return high << 8 | low, kind, flags, stream & MAX_WINDOW


def read_number(buffer: bytes | bytearray, at: int) -> int:
    """31 bits, as window updates have them."""
    number: int = _NUMBER.unpack_from(buffer, at)[0]
    return number & MAX_WINDOW


def data_head(length: int, stream: int) -> bytes:
    """The head of a DATA frame that does not end its stream."""
    return _HEAD.pack(length >> 8, length & 0xFF, DATA, 0, stream)


def data_frames(chunks: Sequence[Chunk], size: int, stream: int, max_frame: int) -> list[Chunk]:
    """DATA frames with these bytes, `size` in all, that do not end their stream."""
    if size <= max_frame:
        return [data_head(size, stream), *chunks] if size else []
    frames: list[Chunk] = []
    whole = memoryview(b"".join(chunks))
    for at in range(0, size, max_frame):
        piece = whole[at : at + max_frame]
        frames += (data_head(len(piece), stream), piece)
    return frames


def window_update(stream: int, size: int) -> bytes:
    """Lets the other end send so much more; stream 0: on the whole connection."""
    return _HEAD.pack(0, 4, WINDOW_UPDATE, 0, stream) + _NUMBER.pack(size)


def ping() -> bytes:
    return _PING


def ping_ack(payload: bytes) -> bytes:
    return _PING_ACK + payload


def goaway(last_stream: int, code: int, reason: bytes = b"") -> bytes:
    length = 8 + len(reason)
    head = _HEAD.pack(length >> 8, length & 0xFF, GOAWAY, 0, 0)
    return head + _NUMBER.pack(last_stream) + _NUMBER.pack(code) + reason


def read_prefix(buffer: bytes | bytearray) -> tuple[bool, int]:
    """Whether the gRPC message that begins here is compressed, and its length."""
    compressed, length = _PREFIX.unpack_from(buffer)
    return bool(compressed), length


def message_prefix(length: int) -> bytes:
    """What stands before a gRPC message that is not compressed."""
    return _PREFIX.pack(0, length)
