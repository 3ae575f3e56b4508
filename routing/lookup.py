"""What the kernel is asked: the way to an address, and the routes that a routing daemon has learned. In the network
namespace of the calling thread; reads only.
"""

from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import Any, Self

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from routing.plan import Hop
from wire.records import IPAddress, IPNetwork

LEARNED = {11: "zebra", 12: "bird", 186: "bgp", 187: "isis", 188: "ospf", 189: "rip", 192: "eigrp"}
"""Route protocols of routing daemons (rtnetlink(7), /etc/iproute2/rt_protos)."""
_FAMILIES = {4: 2, 6: 10}
_MAIN = 254
_UNICAST = 1


class Lookup:
    """Asks on one socket; remembers the devices while it lives. Use it in a `with`."""

    def __init__(self) -> None:
        self._netlink = IPRoute()
        self._links: dict[int, tuple[str, int]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._netlink.close()

    def hops(self, addresses: Iterable[IPAddress]) -> dict[IPAddress, Hop | None]:
        """The way to each address as the node's own packets take it; None where there is none, or it is our own."""
        return {address: self._hop(address) for address in addresses}

    def learned(self) -> dict[IPNetwork, Hop]:
        """Routes of the main table that a routing daemon has put there, without default routes."""
        found: dict[IPNetwork, Hop] = {}
        for family in _FAMILIES.values():
            for route in self._netlink.get_routes(family=family, table=_MAIN):
                destination = route.get_attr("RTA_DST")
                if route["proto"] in LEARNED and route["type"] == _UNICAST and destination:
                    hop = self._as_hop(route)
                    if hop is not None:
                        found[ip_network((destination, route["dst_len"]))] = hop
        return found

    def _hop(self, address: IPAddress) -> Hop | None:
        try:
            (route, *_) = self._netlink.route("get", family=_FAMILIES[address.version], dst=str(address))
        except NetlinkError:  # unreachable, prohibited, blackholed
            return None
        return self._as_hop(route) if route["type"] == _UNICAST else None

    def _as_hop(self, route: Any) -> Hop | None:
        """Of several equal next hops the first: one flow takes one way then."""
        metrics, source = route.get_attr("RTA_METRICS"), route.get_attr("RTA_PREFSRC")
        several = route.get_attr("RTA_MULTIPATH")
        if several:
            route = several[0]
        ifindex = route["oif"] if several else route.get_attr("RTA_OIF")
        if ifindex not in self._devices():
            return None
        device, mtu = self._devices()[ifindex]
        limit = metrics.get_attr("RTAX_MTU") if metrics else None
        gateway = route.get_attr("RTA_GATEWAY")
        via = route.get_attr("RTA_VIA")
        if via is not None and not gateway:
            gateway = via.get("addr")
        return Hop(
            ifindex,
            device,
            min(mtu, limit or mtu),
            ip_address(source) if source else None,
            ip_address(gateway) if gateway else None,
        )

    def _devices(self) -> dict[int, tuple[str, int]]:
        if self._links is None:
            self._links = {
                link["index"]: (str(link.get_attr("IFLA_IFNAME")), int(link.get_attr("IFLA_MTU")))
                for link in self._netlink.get_links()
            }
        return self._links
