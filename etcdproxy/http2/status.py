"""gRPC's words in HTTP/2's headers: status, message, time-out. Pure."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from grpc import StatusCode
from h2.errors import ErrorCodes

Headers = list[tuple[bytes, bytes]]

_CONTENT_TYPE = (b"content-type", b"application/grpc")
ANSWER: Headers = [(b":status", b"200"), _CONTENT_TYPE]
NOT_GRPC: Headers = [(b":status", b"415"), (b"grpc-status", b"2")]
_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_UNIT_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_RESETS = {
    StatusCode.RESOURCE_EXHAUSTED: ErrorCodes.ENHANCE_YOUR_CALM,
    StatusCode.UNAVAILABLE: ErrorCodes.REFUSED_STREAM,
    StatusCode.PERMISSION_DENIED: ErrorCodes.INADEQUATE_SECURITY,
    StatusCode.INTERNAL: ErrorCodes.INTERNAL_ERROR,
}


class Status(NamedTuple):
    """How a call ends."""

    code: StatusCode
    details: str = ""


OK = Status(StatusCode.OK)


class Refused(Exception):
    """The call ends with this status."""

    def __init__(self, code: StatusCode, details: str) -> None:
        super().__init__(details)
        self.status = Status(code, details)


def trailers(status: Status) -> Headers:
    """The headers that end a call."""
    number: int = status.code.value[0]
    ending = [(b"grpc-status", str(number).encode())]
    if status.details:
        ending.append((b"grpc-message", percent_encode(status.details)))
    return ending


def percent_encode(text: str) -> bytes:
    """As gRPC wants a message: printable ASCII as it is, all else and the percent sign as %XX."""
    return b"".join(
        bytes((byte,)) if 0x20 <= byte < 0x7F and byte != 0x25 else b"%%%02X" % byte for byte in text.encode()
    )


def reset_code(status: Status) -> ErrorCodes:
    """The HTTP/2 error that clients read as this status, for a call that cannot get its trailers any more."""
    return _RESETS.get(status.code, ErrorCodes.CANCEL)


def is_grpc(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request is a call of gRPC's."""
    is_call = headers.get(b":method") == b"POST" and headers.get(b":path", b"").startswith(b"/")
    return is_call and headers.get(b"content-type", b"").startswith(b"application/grpc")


def grpc_timeout(headers: Mapping[bytes, bytes]) -> float | None:
    """After how many seconds the reader no longer wants the answer; None: it waits."""
    match = _TIMEOUT.fullmatch(headers.get(b"grpc-timeout", b""))
    return int(match[1]) * _UNIT_S[match[2]] if match else None
