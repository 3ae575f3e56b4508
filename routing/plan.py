"""From a node's record to the way its pods are reached. Pure: nodes, settings and what the kernel was asked go in,
routes come out, each with its reason.

    mode     on-link, learned, same subnet group      anything else
    tunnel   tunnel                                   tunnel
    direct   direct                                   unreachable
    hybrid   direct                                   tunnel
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from routing.tunnel import BadTunnel, Tunnel, tunnel_of
from wire.records import IPAddress, IPNetwork, Node


class Mode(StrEnum):
    """How packets go to the nodes of a cluster."""

    TUNNEL = "tunnel"
    DIRECT = "direct"  # without encapsulation; what is not reached so is not reached
    HYBRID = "hybrid"  # direct where the node is on-link, by tunnel elsewhere


class RouteKind(StrEnum):
    """How a packet to a prefix leaves this node."""

    LOCAL = "local"  # the prefix is this node's own: the CNI delivers
    SAME_CLUSTER = "same-cluster"  # another node of this cluster: the CNI's business
    DIRECT = "direct"  # a node of another cluster, as it is, to the next hop
    TUNNEL = "tunnel"  # a node of another cluster, by tunnel to its node IP
    UNREACHABLE = "unreachable"  # a node of another cluster that neither way leads to; the reason says why


@dataclass(frozen=True, slots=True)
class Hop:
    """What the kernel says of the way to an address: through which device, and which gateway (None: on-link)."""

    ifindex: int
    device: str
    mtu: int
    source: IPAddress | None
    """The address that this node would send from."""
    gateway: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class End:
    """A tunnel device of this node; `mtu` is the underlay's."""

    ifindex: int
    device: str
    mtu: int


@dataclass(frozen=True, slots=True)
class Settings:
    """`subnets` are groups of networks whose nodes reach each other's pods through the routers between them."""

    cluster: str
    node: str
    mode: Mode = Mode.TUNNEL
    peers: Mapping[str, Mode] = field(default_factory=dict)
    """Another mode for the nodes of a cluster."""
    underlay_version: int = 4
    subnets: tuple[tuple[IPNetwork, ...], ...] = ()

    def mode_of(self, cluster: str) -> Mode:
        return self.peers.get(cluster, self.mode)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the kernel was asked: ways to node IPs (None: there is none), tunnel devices (or why there is none),
    and routes that a routing daemon has learned.
    """

    hops: Mapping[IPAddress, Hop | None] = field(default_factory=dict)
    ends: Mapping[Tunnel, End | str] = field(default_factory=dict)
    learned: Mapping[IPNetwork, Hop] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Route:
    """A PodCIDR and the way to it. `endpoint` is the node IP that tunnels end at, None without one of the underlay's
    family; `next_hop` and `hop` are those of a direct route.
    """

    prefix: IPNetwork
    cluster: str
    node: str
    endpoint: IPAddress | None
    kind: RouteKind
    reason: str
    next_hop: IPAddress | None = None
    hop: Hop | None = None
    end: End | None = None
    learned: bool = False
    """A routing daemon has put it into the kernel."""
    narrow: bool = False
    """The way carries less than the device would; `end` and `hop` have what it carries."""


def plan_node(node: Node, settings: Settings, surroundings: Surroundings, path: int = 0) -> tuple[Route, ...]:
    """A route for each PodCIDR of a node, as seen from this one. `path` is what the way to it was found to carry, in
    bytes of the outer packet; 0: nothing less than the underlay does.

    Raises ValueError if a PodCIDR is no prefix (the codec has checked that).
    """
    return tuple(_fitting(_plan(node, prefix, settings, surroundings), path) for prefix in node.pod_cidrs())


def needed_tunnel(node: Node, settings: Settings) -> Tunnel | None:
    """The tunnel device that the node may be reached by; None if it needs none, or announces none that there is."""
    if node.cluster == settings.cluster or settings.mode_of(node.cluster) is Mode.DIRECT:
        return None
    try:
        return tunnel_of(node)
    except BadTunnel:
        return None


def needed_hops(node: Node, settings: Settings) -> tuple[IPAddress, ...]:
    """The node IPs that the kernel has to be asked the way to."""
    if node.cluster == settings.cluster or settings.mode_of(node.cluster) is Mode.TUNNEL:
        return ()
    return tuple(address for version in (4, 6) if (address := node.node_ip(version)))


def _plan(node: Node, prefix: IPNetwork, settings: Settings, surroundings: Surroundings) -> Route:
    endpoint = node.node_ip(settings.underlay_version)

    def route(kind: RouteKind, reason: str) -> Route:
        return Route(prefix, node.cluster, node.name, endpoint, kind, reason)

    if node.cluster == settings.cluster:
        if node.name == settings.node:
            return route(RouteKind.LOCAL, "this node")
        return route(RouteKind.SAME_CLUSTER, f"node {node.name} of this cluster")
    mode = settings.mode_of(node.cluster)
    if mode is Mode.TUNNEL:
        return _by_tunnel(node, route(RouteKind.TUNNEL, f"mode {mode}"), settings, surroundings)
    direct = _direct(node, route(RouteKind.DIRECT, ""), settings, surroundings)
    if direct.kind is RouteKind.DIRECT or mode is Mode.DIRECT:
        return direct
    tunnel = route(RouteKind.TUNNEL, f"mode {mode}, {direct.reason}")
    return _by_tunnel(node, tunnel, settings, surroundings)


def _fitting(route: Route, path: int) -> Route:
    carrier = route.end or route.hop
    if not path or carrier is None or carrier.mtu <= path:
        return route
    reason = f"{route.reason}; the way carries {path} of {carrier.mtu} bytes"
    end, hop = route.end and replace(route.end, mtu=path), route.hop and replace(route.hop, mtu=path)
    return replace(route, reason=reason, end=end, hop=hop, narrow=True)


def _by_tunnel(node: Node, route: Route, settings: Settings, surroundings: Surroundings) -> Route:
    if route.endpoint is None:
        return _unreachable(route, f"{_name(node)} has no IPv{settings.underlay_version} node address")
    try:
        tunnel = tunnel_of(node)
    except BadTunnel as error:
        return _unreachable(route, f"{_name(node)} announces {error}")
    end = surroundings.ends.get(tunnel)
    if not isinstance(end, End):
        return _unreachable(route, end or f"the device for {tunnel} is not there yet")
    return replace(route, reason=f"{_name(node)} by {tunnel} on {end.device}: {route.reason}", end=end)


def _direct(node: Node, route: Route, settings: Settings, surroundings: Surroundings) -> Route:
    """The direct route, or the unreachable one that says why there is none."""
    learned = surroundings.learned.get(route.prefix)
    if learned is not None:
        reason = f"learned from the routing daemon, via {learned.gateway or learned.device}"
        next_hop = learned.gateway or node.node_ip(route.prefix.version)
        return replace(route, reason=reason, next_hop=next_hop, hop=learned, learned=True)
    address = node.node_ip(route.prefix.version)
    if address is None:
        return _unreachable(route, f"{_name(node)} has no IPv{route.prefix.version} node address to route by")
    hop = surroundings.hops.get(address)
    if hop is None:
        known = address in surroundings.hops
        return _unreachable(route, f"no route to {address}" if known else f"the way to {address} is not known yet")
    if hop.gateway is None:
        return replace(route, reason=f"{_name(node)} at {address} is on-link", next_hop=address, hop=hop)
    if _same_group(settings, hop.source, address):
        reason = f"{_name(node)} at {address} is in the same subnet group, via {hop.gateway}"
        return replace(route, reason=reason, next_hop=hop.gateway, hop=hop)
    return _unreachable(route, f"{address} is not on-link but behind {hop.gateway}")


def _same_group(settings: Settings, source: IPAddress | None, address: IPAddress) -> bool:
    return source is not None and any(
        any(source in network for network in group) and any(address in network for network in group)
        for group in settings.subnets
    )


def _name(node: Node) -> str:
    return f"{node.cluster}/{node.name}"


def _unreachable(route: Route, reason: str) -> Route:
    return replace(route, kind=RouteKind.UNREACHABLE, reason=reason)
