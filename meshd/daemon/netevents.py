"""What the kernel tells of devices, addresses, routes and rules (rtnetlink(7)): which ways to nodes may be others now,
and whether routes of ours may be gone, or are in the wrong table. The kernel drops those of a device that goes down, or
of an address that goes, IPv4's without a word. Pure.
"""

import struct
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field
from ipaddress import ip_address

from routing.rtnetlink import (
    DELADDR,
    DELLINK,
    DELROUTE,
    DELRULE,
    NEWADDR,
    NEWLINK,
    NEWROUTE,
    KernelRoute,
    attributes,
    messages,
    parse_route,
)
from wire.records import IPAddress, IPNetwork

_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=4BI")
_IFA_ADDRESS, _IFA_LOCAL = 1, 2


@dataclass(slots=True)
class Concern:
    """What events may have moved: routes to these networks, everything by these devices or from these addresses."""

    everything: bool = False
    networks: set[IPNetwork] = field(default_factory=set)
    devices: set[int] = field(default_factory=set)
    sources: set[IPAddress] = field(default_factory=set)
    protocols: set[int] = field(default_factory=set)
    """Of routes that came or went."""

    def take(self, datagram: bytes, *, protocol: int) -> None:
        """What the kernel said, but for routes of the protocol, which we write."""
        for kind, _, _, body in messages(datagram):
            if kind in (NEWROUTE, DELROUTE) and (route := parse_route(body)) is not None:
                if route.protocol != protocol:
                    self.networks.add(route.prefix)
                    self.protocols.add(route.protocol)
            elif kind in (NEWADDR, DELADDR) and len(body) >= _ADDRESS.size:
                self._take_address(body)
            elif kind in (NEWLINK, DELLINK) and len(body) >= _LINK.size:
                self.devices.add(_LINK.unpack_from(body)[2])
            else:
                self.everything = True

    def _take_address(self, body: bytes) -> None:
        """The route to its network is told beside it; not that those go which have it for a source."""
        self.devices.add(_ADDRESS.unpack_from(body)[4])
        found = dict(attributes(body, _ADDRESS.size))
        several = (found.get(kind, b"") for kind in (_IFA_ADDRESS, _IFA_LOCAL))
        self.sources |= {ip_address(packed) for packed in several if packed}


EVERYTHING = Concern(everything=True)


@dataclass(frozen=True, slots=True)
class Networks:
    """Is an address in one of many networks? Costs the number of different lengths."""

    _by_length: dict[tuple[int, int], frozenset[int]]

    @classmethod
    def of(cls, networks: Iterable[IPNetwork]) -> "Networks":
        found: dict[tuple[int, int], set[int]] = {}
        for network in networks:
            shift = network.max_prefixlen - network.prefixlen
            found.setdefault((network.version, shift), set()).add(int(network.network_address) >> shift)
        return cls({key: frozenset(numbers) for key, numbers in found.items()})

    def __contains__(self, address: IPAddress) -> bool:
        number, version = int(address), address.version
        return any(v == version and number >> shift in found for (v, shift), found in self._by_length.items())


def takes_routes(datagram: bytes, *, devices: Set[int], protocol: int, is_wanted: Callable[[bytes], bool]) -> bool:
    """A device of these came, went or changed, a route of the protocol to a wanted prefix (as text) went, or somebody
    else's to one came or went; or a rule went, which may have led to ours.
    """
    for kind, _, _, body in messages(datagram):
        if kind == DELRULE:
            return True
        if kind in (NEWLINK, DELLINK) and len(body) >= _LINK.size and _LINK.unpack_from(body)[2] in devices:
            return True
        if (route := _route(kind, body)) is not None:
            written = kind == NEWROUTE and route.protocol == protocol
            if not written and route.bits and is_wanted(str(route.prefix).encode()):
                return True
    return False


def is_own(datagram: bytes, *, protocol: int) -> bool:
    """Nothing but routes of the protocol: the answer to what we wrote ourselves."""
    routes = [_route(kind, body) for kind, _, _, body in messages(datagram)]
    return all(route is not None and route.protocol == protocol for route in routes)


def _route(kind: int, body: bytes) -> KernelRoute | None:
    return parse_route(body) if kind in (NEWROUTE, DELROUTE) else None
