"""Which node a pod runs on and which address it gets. Pure.

The address is asked for by an annotation and decides the node; a nodeSelector or nodeName that disagrees is an error.
A real cluster ignores the annotation and follows the selector.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from typing import Any

from meshd.config import ConfigError
from meshd.testbed.plan import Cluster, Node

IP_ANNOTATION = "testbed.meshd.io/ip"
NODE_LABEL = "testbed.meshd.io/node"


@dataclass(frozen=True, slots=True)
class Placement:
    node: Node
    address: IPv4Address


def place(pod: Mapping[str, Any], cluster: Cluster, taken: Iterable[IPv4Address]) -> Placement:
    """Raises ConfigError naming the pod if what it asks for cannot be had."""
    name = f"{cluster.name}: pod {pod['metadata']['namespace']}/{pod['metadata']['name']}"
    used = set(taken)
    asked = pod["metadata"].get("annotations", {}).get(IP_ANNOTATION)
    nodes = [node for node in cluster.nodes if _accepts(pod["spec"], node)]
    if not nodes:
        raise ConfigError(
            f"{name}: no node fits its nodeName and nodeSelector; there are {', '.join(n.name for n in cluster.nodes)}"
        )
    if asked is None:
        return Placement(nodes[0], _first_free(nodes[0], used, name))
    try:
        address = IPv4Address(asked)
    except AddressValueError as error:
        raise ConfigError(f"{name}: annotation {IP_ANNOTATION}: {error}") from error
    for node in nodes:
        if address in node.pod_cidr and address != node.gateway:
            if address in used:
                raise ConfigError(f"{name}: address {address} belongs to another pod")
            return Placement(node, address)
    cidrs = ", ".join(f"{node.name}: {node.pod_cidr}" for node in nodes)
    raise ConfigError(f"{name}: address {address} is in no PodCIDR of the nodes that fit ({cidrs})")


def _accepts(spec: Mapping[str, Any], node: Node) -> bool:
    if spec.get("nodeName", node.name) != node.name:
        return False
    labels = node_labels(node)
    return all(labels.get(key) == value for key, value in spec.get("nodeSelector", {}).items())


def node_labels(node: Node) -> dict[str, str]:
    """The labels of a Node object; the kind configurations give the same number."""
    return {
        "kubernetes.io/hostname": node.name,
        "kubernetes.io/os": "linux",
        NODE_LABEL: str(node.number),
        "topology.kubernetes.io/zone": f"{node.cluster}-zone{node.number}",
    }


def _first_free(node: Node, used: set[IPv4Address], name: str) -> IPv4Address:
    for address in node.pod_cidr.hosts():
        if address not in used and address != node.gateway:
            return address
    raise ConfigError(f"{name}: {node.name} has no free address in {node.pod_cidr}")
