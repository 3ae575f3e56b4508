"""The kernel's messages of routes, the questions for them, and how they are changed (rtnetlink(7), linux/rtnetlink.h).
Pure.

pyroute2 takes 0.1 ms to decode a route and 0.4 to write one, which is too much where a node has 25 000 of them.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network

from wire.records import IPAddress, IPNetwork

NEWLINK, DELLINK, NEWADDR, DELADDR, NEWROUTE, DELROUTE, GETROUTE = 16, 17, 20, 21, 24, 25, 26
NEWRULE, DELRULE = 32, 33
ERROR, DONE = 2, 3
INTERRUPTED = 0x10
"""Flag of an answer: the tables changed meanwhile."""
FAMILIES = {4: 2, 6: 10}
UNICAST = 1
_VERSIONS = {family: version for version, family in FAMILIES.items()}
_REQUEST, _ACK, _DUMP, _REPLACE, _CREATE = 0x1, 0x4, 0x300, 0x100, 0x400
_MATCH = {4: 0x2000 | 0x1000, 6: 0x2000}  # RTM_F_FIB_MATCH: tell the route itself; RTM_F_LOOKUP_TABLE: and its table
_CLONED = 0x200  # RTM_F_CLONED
_HEADER = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=8BI")
_ATTRIBUTE = struct.Struct("=HH")
_NEXT_HOP = struct.Struct("=HBBi")
_NUMBER = struct.Struct("=I")
_ERRNO = struct.Struct("=i")
_DST, _OIF, _GATEWAY, _PRIORITY, _PREFSRC, _METRICS, _MULTIPATH, _TABLE, _VIA = 1, 4, 5, 6, 7, 8, 9, 15, 18
_SCOPE_UNIVERSE, _SCOPE_LINK, _SCOPE_ANY = 0, 253, 255
_METRIC_MTU = 2
_DEAD = 0x1 | 0x10  # RTNH_F_DEAD, RTNH_F_LINKDOWN
_KIND = 0x3FFF  # the rest are flags
_ALIGN = 4


@dataclass(frozen=True, slots=True)
class KernelRoute:
    """A route, or the answer to a question for the way to an address. Addresses are packed, b"" for none; of several
    next hops the first that lives, and the devices of all of them.
    """

    version: int
    bits: int
    table: int
    protocol: int
    kind: int
    destination: bytes
    gateway: bytes
    source: bytes
    mtu: int
    devices: tuple[int, ...]

    @property
    def prefix(self) -> IPNetwork:
        packed = self.destination or bytes(4 if self.version == 4 else 16)
        return ip_network((packed, self.bits), strict=False)


def messages(datagram: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Type, flags, sequence number and body of each message."""
    at = 0
    while at + _HEADER.size <= len(datagram):
        length, kind, flags, number, _ = _HEADER.unpack_from(datagram, at)
        if length < _HEADER.size:
            return
        yield kind, flags, number, datagram[at + _HEADER.size : at + length]
        at += -(-length // _ALIGN) * _ALIGN


def attributes(body: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """Those that follow a header of `at` bytes."""
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _KIND, body[at + _ATTRIBUTE.size : at + length]
        at += -(-length // _ALIGN) * _ALIGN


def parse_route(body: bytes) -> KernelRoute | None:
    """None for what is no route of IP."""
    if len(body) < _ROUTE.size:
        return None
    family, bits, _, _, table, protocol, _, kind, _ = _ROUTE.unpack_from(body)
    version = _VERSIONS.get(family)
    if version is None:
        return None
    found = dict(attributes(body, _ROUTE.size))
    if _TABLE in found:
        (table,) = _NUMBER.unpack(found[_TABLE])
    devices = [_NUMBER.unpack(found[_OIF])[0]] if _OIF in found else []
    hops = sorted(_next_hops(found.get(_MULTIPATH, b"")), key=lambda hop: hop[0])
    devices += [device for _, device, _ in hops]
    mtu = dict(attributes(found.get(_METRICS, b""), 0)).get(_METRIC_MTU)
    return KernelRoute(
        version,
        bits,
        table,
        protocol,
        kind,
        found.get(_DST, b""),
        _gateway(found) or (hops[0][2] if hops else b""),
        found.get(_PREFSRC, b""),
        _NUMBER.unpack(mtu)[0] if mtu else 0,
        tuple(devices),
    )


def _gateway(found: dict[int, bytes]) -> bytes:
    """RTA_VIA is for a gateway of another family: two bytes of it come first."""
    return found.get(_GATEWAY) or found.get(_VIA, b"")[2:]


def _next_hops(body: bytes) -> Iterator[tuple[bool, int, bytes]]:
    """Whether it is dead, device and gateway of each."""
    at = 0
    while at + _NEXT_HOP.size <= len(body):
        length, flags, _, device = _NEXT_HOP.unpack_from(body, at)
        if length < _NEXT_HOP.size:
            return
        yield bool(flags & _DEAD), device, _gateway(dict(attributes(body[at : at + length], _NEXT_HOP.size)))
        at += -(-length // _ALIGN) * _ALIGN


def way_request(address: IPAddress, number: int, *, match: bool = False) -> bytes:
    """The question for the way to an address, as the node's own packets take it; or for the route that it is by."""
    family, packed = FAMILIES[address.version], address.packed
    body = _ROUTE.pack(family, 8 * len(packed), 0, 0, 0, 0, 0, 0, _MATCH[address.version] if match else 0)
    return _message(number, _REQUEST, body + _attribute(_DST, packed))


def dump_request(version: int, number: int, *, table: int = 0, protocol: int = 0, device: int = 0) -> bytes:
    """The question for all routes of these (0: of any). A kernel that does not filter tells them all."""
    body = _ROUTE.pack(FAMILIES[version], 0, 0, 0, table, protocol, 0, 0, 0)
    return _message(number, _REQUEST | _DUMP, body + (_attribute(_OIF, _NUMBER.pack(device)) if device else b""))


def replace_request(route: KernelRoute, number: int, *, priority: int = 0) -> bytes:
    """The route shall stand, in the place of what has its prefix, table and priority. The answer is an ERROR of 0."""
    scope = _SCOPE_UNIVERSE if route.gateway or route.version == 6 else _SCOPE_LINK
    body = _place(route, scope) + b"".join(_attribute(_OIF, _NUMBER.pack(device)) for device in route.devices)
    body += _attribute(_PRIORITY, _NUMBER.pack(priority)) if priority else b""
    body += _attribute(_GATEWAY, route.gateway) if route.gateway else b""
    body += _attribute(_PREFSRC, route.source) if route.source else b""
    body += _attribute(_METRICS, _attribute(_METRIC_MTU, _NUMBER.pack(route.mtu))) if route.mtu else b""
    return _message(number, _REQUEST | _ACK | _REPLACE | _CREATE, body, NEWROUTE)


def delete_request(route: KernelRoute, number: int) -> bytes:
    """The first route of its prefix, table, protocol and kind shall go. The answer is an ERROR, 0 if there was one."""
    return _message(number, _REQUEST | _ACK, _place(route, _SCOPE_ANY), DELROUTE)


def _place(route: KernelRoute, scope: int) -> bytes:
    family, small = FAMILIES[route.version], route.table if route.table < 256 else 0
    body = _ROUTE.pack(family, route.bits, 0, 0, small, route.protocol, scope, route.kind, 0)
    return body + _attribute(_DST, route.destination) + _attribute(_TABLE, _NUMBER.pack(route.table))


def exceptions_request(version: int, number: int) -> bytes:
    """The question for what the kernel has learned of single addresses, such as the largest packet for them."""
    return _message(number, _REQUEST | _DUMP, _ROUTE.pack(FAMILIES[version], 0, 0, 0, 0, 0, 0, 0, _CLONED))


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value


def _message(number: int, flags: int, body: bytes, kind: int = GETROUTE) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, number, 0) + body


def error_of(body: bytes) -> int:
    """The errno of an ERROR or DONE message, 0 for none."""
    return -int(_ERRNO.unpack_from(body)[0]) if len(body) >= _ERRNO.size else 0
