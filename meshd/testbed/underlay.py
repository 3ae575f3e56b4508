"""The wires: a bridge in a switch namespace, nodes and control planes on it, pods behind nodes as kindnet makes them.

Every device is created inside its namespace; the machine's own namespace never sees one.
"""

import hashlib
from collections.abc import Sequence
from ipaddress import IPv4Address

from meshd.testbed import netns
from meshd.testbed.layout import Layout
from meshd.testbed.plan import GATEWAY, UNDERLAY, Cluster, Node

BRIDGE = "br0"
DEVICE = "eth0"
"""A node's device on the underlay, and a pod's only one."""

_NODE_SYSCTLS = (
    "net.ipv4.ip_forward=1",
    "net.ipv4.conf.all.send_redirects=0",
    "net.ipv4.conf.default.send_redirects=0",
)


def ensure_underlay(layout: Layout, clusters: Sequence[Cluster]) -> None:
    """Makes the switch, the nodes and the control planes; what an interrupted run left must be gone before.

    Raises NetworkError.
    """
    hosts = _hosts(layout, clusters)
    netns.ip([f"netns add {name}" for name in (layout.switch, *(name for name, _, _ in hosts))])
    netns.ip(
        [
            "link set lo up",
            f"link add {BRIDGE} type bridge",
            f"addr add {GATEWAY}/{UNDERLAY.prefixlen} dev {BRIDGE}",
            f"link set {BRIDGE} up",
            *(
                command
                for name, port, _ in hosts
                for command in (
                    f"link add {port} type veth peer name {DEVICE} netns {name}",
                    f"link set {port} master {BRIDGE} up",
                )
            ),
        ],
        namespace=layout.switch,
    )
    netns.sysctl(_NODE_SYSCTLS, namespace=layout.switch)
    for name, _, address in hosts:
        netns.ip(_host_commands(address), namespace=name)
    for cluster in clusters:
        for node in cluster.nodes:
            namespace = layout.node(cluster.name, node.name)
            netns.sysctl(_NODE_SYSCTLS, namespace=namespace)
            netns.ip(_node_routes(cluster, node), namespace=namespace)


def _hosts(layout: Layout, clusters: Sequence[Cluster]) -> list[tuple[str, str, IPv4Address]]:
    """Namespace, port of the switch and address of all that is on the underlay."""
    found = []
    for cluster in clusters:
        found.append((layout.control_plane(cluster.name), f"c{cluster.cluster_id}-cp", cluster.control_plane))
        found += [
            (layout.node(cluster.name, node.name), f"c{cluster.cluster_id}-{node.name}", node.address)
            for node in cluster.nodes
        ]
    return found


def _host_commands(address: IPv4Address) -> list[str]:
    return [
        "link set lo up",
        f"addr add {address}/{UNDERLAY.prefixlen} dev {DEVICE}",
        f"link set {DEVICE} up",
        f"route add default via {GATEWAY}",
    ]


def _node_routes(cluster: Cluster, node: Node) -> list[str]:
    """kindnet's routes: the PodCIDRs of the cluster's other nodes through their addresses."""
    return [f"route add {other.pod_cidr} via {other.address}" for other in cluster.nodes if other != node]


def ensure_pod(namespace: str, node_namespace: str, node: Node, address: IPv4Address) -> None:
    """Makes a pod's namespace: a veth pair, one /32, the gateway on the node's side. An incomplete one is made anew.

    Raises NetworkError.
    """
    if netns.exists(namespace):
        if _is_wired(namespace, address):
            return
        remove_pod(namespace, node_namespace)
    host_device = veth_name(namespace)
    netns.ip(
        [
            f"netns add {namespace}",
            f"link add {DEVICE} netns {namespace} type veth peer name {host_device} netns {node_namespace}",
        ]
    )
    netns.ip(
        [
            f"addr add {node.gateway}/32 dev {host_device}",
            f"link set {host_device} up",
            f"route add {address}/32 dev {host_device}",
        ],
        namespace=node_namespace,
    )
    netns.ip(
        [
            "link set lo up",
            f"addr add {address}/32 dev {DEVICE}",
            f"link set {DEVICE} up",
            f"route add {node.gateway}/32 dev {DEVICE} scope link src {address}",
            f"route add default via {node.gateway} src {address}",
        ],
        namespace=namespace,
    )


def remove_pod(namespace: str, node_namespace: str) -> None:
    """Removes a pod's device and namespace. Absent is success. Raises NetworkError.

    The device first: the kernel clears a removed namespace only later, and till then the node's end keeps its name.
    """
    device = veth_name(namespace)
    if device in netns.devices(node_namespace):
        netns.ip([f"link delete {device}"], namespace=node_namespace)
    netns.remove([namespace])


def veth_name(pod_namespace: str) -> str:
    """The pod's device on its node: short and unique, as kindnet names them."""
    return f"veth{hashlib.sha256(pod_namespace.encode()).hexdigest()[:8]}"


def _is_wired(namespace: str, address: IPv4Address) -> bool:
    """The default route is the last thing that is made."""
    return f"src {address}" in netns.output(["ip", "route", "show", "default"], namespace=namespace)
