"""What the kernel tells of devices and routes (rtnetlink(7)), as far as it says that routes of ours may be gone: the
kernel drops those of a device that goes down, IPv4's without a word. Pure.
"""

import struct
from collections.abc import Iterator, Set

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ROUTE = struct.Struct("=8BI")
_NEWLINK, _DELLINK, _DELROUTE = 16, 17, 25
_ALIGN = 4


def takes_routes(datagram: bytes, *, devices: Set[int], protocol: int) -> bool:
    """A device of these came, went or changed, or a route of the protocol went."""
    return any(
        (kind in (_NEWLINK, _DELLINK) and _LINK.unpack_from(datagram, at)[2] in devices)
        or (kind == _DELROUTE and _ROUTE.unpack_from(datagram, at)[5] == protocol)
        for kind, at in _messages(datagram)
    )


def _messages(datagram: bytes) -> Iterator[tuple[int, int]]:
    """Type of each message and where its body begins."""
    at = 0
    while at + _HEADER.size + _LINK.size <= len(datagram):
        length, kind, *_ = _HEADER.unpack_from(datagram, at)
        yield kind, at + _HEADER.size
        if length < _HEADER.size:
            return
        at += -(-length // _ALIGN) * _ALIGN
