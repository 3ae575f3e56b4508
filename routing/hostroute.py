"""The route that the node's own packets take to a remote PodCIDR. Pure: from the plan, and to text and back."""

import re
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from routing.plan import Route, RouteKind
from routing.tunnel import IPV6_LEAST, OVERHEAD
from wire.records import IPAddress, IPNetwork

_TEXT = re.compile(r"dev (\d+)(?: via (\S+))?(?: src (\S+))?(?: mtu (\d+))?")


@dataclass(frozen=True, slots=True)
class HostRoute:
    """`gateway` None: the device reaches the prefix itself. `mtu` in bytes, 0: the device's."""

    prefix: IPNetwork
    ifindex: int
    gateway: IPAddress | None = None
    source: IPAddress | None = None
    mtu: int = 0

    def __str__(self) -> str:
        return f"{self.prefix} {self.way}"

    @property
    def way(self) -> str:
        """All but the prefix, as text."""
        words = [f"dev {self.ifindex}"]
        words += [f"via {self.gateway}"] if self.gateway else []
        words += [f"src {self.source}"] if self.source else []
        words += [f"mtu {self.mtu}"] if self.mtu else []
        return " ".join(words)


def parse_host_route(prefix: str, way: str) -> HostRoute:
    """The inverse of `str(route.prefix)` and `route.way`. Raises ValueError."""
    match = _TEXT.fullmatch(way)
    if match is None:
        raise ValueError(f"no way: {way!r}")
    device, gateway, source, mtu = match.groups()
    return HostRoute(
        ip_network(prefix),
        int(device),
        ip_address(gateway) if gateway else None,
        ip_address(source) if source else None,
        int(mtu or 0),
    )


def host_route(route: Route, *, source: IPAddress | None) -> HostRoute | None:
    """The route of the node itself for a planned one; None where it needs none of ours: our own cluster's prefixes,
    what nothing carries, and what a routing daemon has put into the kernel already.
    """
    if route.kind is RouteKind.TUNNEL and route.end is not None:
        return HostRoute(route.prefix, route.end.ifindex, source=source, mtu=_tunnel_mtu(route))
    if route.kind is RouteKind.DIRECT and route.hop is not None and not route.learned:
        mtu = _allowed(route.hop.mtu, route) if route.narrow else 0
        return HostRoute(route.prefix, route.hop.ifindex, gateway=route.next_hop, source=source, mtu=mtu)
    return None


def _tunnel_mtu(route: Route) -> int:
    """The device's, unless that had to be more than fits, which is for IPv6's sake, or the way carries less."""
    if route.end is None or route.endpoint is None:
        return 0
    fits = route.end.mtu - OVERHEAD[route.endpoint.version]
    if route.narrow:
        return _allowed(fits, route)
    return fits if 0 < fits < IPV6_LEAST and route.prefix.version == 4 else 0


def _allowed(mtu: int, route: Route) -> int:
    """IPv6 knows nothing smaller than its least."""
    return max(mtu, IPV6_LEAST) if route.prefix.version == 6 else mtu
