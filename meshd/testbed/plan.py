"""The address plan of the testbed, the same as the kind configurations' (kind-clusters/)."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

UNDERLAY = IPv4Network("172.18.0.0/16")
"""The network that all nodes share, as Docker's `kind` network."""
GATEWAY = IPv4Address("172.18.0.1")
"""The nodes' default route, as Docker's bridge; it leads nowhere and says so (ICMP unreachable)."""

NODES_PER_CLUSTER = 2
_POD_OCTETS = {1: 10, 2: 20, 3: 40}


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of a cluster: here a network namespace on the underlay."""

    cluster: str
    number: int
    address: IPv4Address
    pod_cidr: IPv4Network

    @property
    def name(self) -> str:
        return f"node{self.number}"

    @property
    def gateway(self) -> IPv4Address:
        """The pods' default route: the last address of the PodCIDR, the first ones belong to pods."""
        return self.pod_cidr.broadcast_address - 1


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster: its ID, its networks and its nodes."""

    name: str
    cluster_id: int
    control_plane: IPv4Address
    pod_subnet: IPv4Network
    service_subnet: IPv4Network
    nodes: tuple[Node, ...]

    def node(self, name: str) -> Node:
        """Raises KeyError with the nodes that there are."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(f"{self.name} has no node {name!r}, only {', '.join(n.name for n in self.nodes)}")


def plan_cluster(number: int) -> Cluster:
    """The plan of `cluster<number>`, 1 to 3."""
    name = f"cluster{number}"
    pod_subnet = IPv4Network(f"{_POD_OCTETS[number]}.0.0.0/16")
    cidrs = list(pod_subnet.subnets(new_prefix=24))[:NODES_PER_CLUSTER]
    first_node = UNDERLAY.network_address + 256 * number + 11
    return Cluster(
        name=name,
        cluster_id=number,
        control_plane=first_node - 1,
        pod_subnet=pod_subnet,
        service_subnet=IPv4Network(f"30.{number}.0.0/16"),
        nodes=tuple(Node(name, i + 1, first_node + i, cidr) for i, cidr in enumerate(cidrs)),
    )


CLUSTERS = {cluster.name: cluster for cluster in (plan_cluster(number) for number in sorted(_POD_OCTETS))}
