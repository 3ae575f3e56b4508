"""What the kernel tells of devices and routes (rtnetlink(7)), as far as it says that routes of ours may be gone, or are
in the wrong table. The kernel drops those of a device that goes down, IPv4's without a word. Pure.
"""

import struct
from collections.abc import Callable, Iterator, Set
from ipaddress import ip_network

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ROUTE = struct.Struct("=8BI")
_ATTRIBUTE = struct.Struct("=HH")
_NEWLINK, _DELLINK, _NEWROUTE, _DELROUTE, _DELRULE = 16, 17, 24, 25, 33
_RTA_DST = 1
_ALIGN = 4


def takes_routes(datagram: bytes, *, devices: Set[int], protocol: int, is_wanted: Callable[[bytes], bool]) -> bool:
    """A device of these came, went or changed, a route of the protocol to a wanted prefix (as text) went, or somebody
    else's to one came or went; or a rule went, which may have led to ours.
    """
    for kind, body in _messages(datagram):
        if kind == _DELRULE:
            return True
        if kind in (_NEWLINK, _DELLINK) and len(body) >= _LINK.size and _LINK.unpack_from(body)[2] in devices:
            return True
        if _is_route(kind, body):
            written = kind == _NEWROUTE and _ROUTE.unpack_from(body)[5] == protocol
            if not written and is_wanted(_prefix(body)):
                return True
    return False


def is_own(datagram: bytes, *, protocol: int) -> bool:
    """Nothing but routes of the protocol: the answer to what we wrote ourselves."""
    return all(_is_route(kind, body) and _ROUTE.unpack_from(body)[5] == protocol for kind, body in _messages(datagram))


def _is_route(kind: int, body: bytes) -> bool:
    return kind in (_NEWROUTE, _DELROUTE) and len(body) >= _ROUTE.size


def _messages(datagram: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each message."""
    at = 0
    while at + _HEADER.size <= len(datagram):
        length, kind, *_ = _HEADER.unpack_from(datagram, at)
        if length < _HEADER.size:
            return
        yield kind, datagram[at + _HEADER.size : at + length]
        at += -(-length // _ALIGN) * _ALIGN


def _prefix(body: bytes) -> bytes:
    """The destination as text; b"" for a default route."""
    bits, at = _ROUTE.unpack_from(body)[1], _ROUTE.size
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if kind == _RTA_DST:
            return str(ip_network((body[at + _ATTRIBUTE.size : at + length], bits), strict=False)).encode()
        if length < _ATTRIBUTE.size:
            break
        at += -(-length // _ALIGN) * _ALIGN
    return b""
