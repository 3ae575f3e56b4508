"""From a node's record to the way its pods are reached. Pure: nodes in, routes out, each with its reason."""

from dataclasses import dataclass
from enum import StrEnum

from wire.records import IPAddress, IPNetwork, Node


class RouteKind(StrEnum):
    """How a packet to a prefix leaves this node."""

    LOCAL = "local"  # the prefix is this node's own: the CNI delivers
    SAME_CLUSTER = "same-cluster"  # another node of this cluster: the CNI's business
    TUNNEL = "tunnel"  # a node of another cluster, by tunnel to its node IP
    UNREACHABLE = "unreachable"  # a node of another cluster without an address that a tunnel could end at


@dataclass(frozen=True, slots=True)
class Route:
    """A PodCIDR and the way to it. `endpoint` is the node IP, None if the node has none of the underlay's family."""

    prefix: IPNetwork
    cluster: str
    node: str
    endpoint: IPAddress | None
    kind: RouteKind
    reason: str


def plan_node(node: Node, *, cluster: str, node_name: str, underlay_version: int = 4) -> tuple[Route, ...]:
    """A route for each PodCIDR of a node, as seen from the node `node_name` of `cluster`.

    Raises ValueError if a PodCIDR is no prefix (the codec has checked that).
    """
    endpoint = node.node_ip(underlay_version)
    if node.cluster == cluster and node.name == node_name:
        kind, reason = RouteKind.LOCAL, "this node"
    elif node.cluster == cluster:
        kind, reason = RouteKind.SAME_CLUSTER, f"node {node.name} of this cluster"
    elif endpoint is None:
        kind, reason = RouteKind.UNREACHABLE, f"{node.cluster}/{node.name} has no IPv{underlay_version} node address"
    else:
        kind, reason = RouteKind.TUNNEL, f"{node.cluster}/{node.name} by tunnel"
    return tuple(Route(prefix, node.cluster, node.name, endpoint, kind, reason) for prefix in node.pod_cidrs())
