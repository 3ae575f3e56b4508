"""What the kernel is asked: the way to an address, and the routes that a routing daemon has learned. In the network
namespace of the calling thread; reads only.
"""

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Self

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from routing.plan import Hop
from routing.routesocket import RouteSocket
from routing.rtnetlink import FAMILIES, UNICAST, KernelRoute
from wire.records import IPAddress, IPNetwork

LEARNED = {11: "zebra", 12: "bird", 186: "bgp", 187: "isis", 188: "ospf", 189: "rip", 192: "eigrp"}
"""Route protocols of routing daemons (rtnetlink(7), /etc/iproute2/rt_protos)."""
_MAIN = 254


class Lookup:
    """Asks on one socket; remembers the devices while it lives. Use it in a `with`. Raises OSError."""

    def __init__(self) -> None:
        self._netlink, self._socket = IPRoute(), RouteSocket()
        self._links: dict[int, tuple[str, int] | None] = {}
        self._hops: dict[tuple[object, ...], Hop | None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._netlink.close()
        self._socket.__exit__()

    def hops(self, addresses: Iterable[IPAddress]) -> dict[IPAddress, Hop | None]:
        """The way to each address as the node's own packets take it; None where there is none, or it is our own."""
        return {
            address: self._as_hop(route) if route is not None and route.kind == UNICAST else None
            for address, route in self._socket.ways(list(addresses))
        }

    def learned(self) -> dict[IPNetwork, Hop]:
        """Routes of the main table that a routing daemon has put there, without default routes."""
        found: dict[IPNetwork, Hop] = {}
        for version in FAMILIES:
            for protocol in LEARNED:
                for route in self._socket.dump(version, table=_MAIN, protocol=protocol):
                    hop = self._as_hop(route) if route.kind == UNICAST and route.bits else None
                    if hop is not None:
                        found[route.prefix] = hop
        return found

    def prefixes_over(self, ifindexes: Iterable[int]) -> set[IPNetwork]:
        """Prefixes that some route, of any table, leads to by one of these devices."""
        return {
            route.prefix
            for ifindex in ifindexes
            for version in FAMILIES
            for route in self._socket.dump(version, device=ifindex)
        }

    def _as_hop(self, route: KernelRoute) -> Hop | None:
        """Of several equal next hops the first: one flow takes one way then."""
        key = (route.devices[:1], route.gateway, route.source, route.mtu)
        if key not in self._hops:
            self._hops[key] = self._made(route)
        return self._hops[key]

    def _made(self, route: KernelRoute) -> Hop | None:
        ifindex = route.devices[0] if route.devices else 0
        link = self._link(ifindex)
        if link is None:
            return None
        device, mtu = link
        return Hop(
            ifindex,
            device,
            min(mtu, route.mtu or mtu),
            ip_address(route.source) if route.source else None,
            ip_address(route.gateway) if route.gateway else None,
        )

    def _link(self, ifindex: int) -> tuple[str, int] | None:
        """Name and MTU."""
        if ifindex not in self._links:
            try:
                (link, *_) = self._netlink.link("get", index=ifindex)
                self._links[ifindex] = str(link.get_attr("IFLA_IFNAME")), int(link.get_attr("IFLA_MTU"))
            except NetlinkError:  # gone meanwhile
                self._links[ifindex] = None
        return self._links[ifindex]
