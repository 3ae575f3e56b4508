"""A Node as other clusters see it: how to reach it and which PodCIDRs are behind it."""

from ipaddress import ip_network

from meshd.agent.endpoints import canonical_ip
from meshd.agent.objects import Node
from meshd.agent.publish.scope import Scope
from wire.records import CIDR, NodeAddress
from wire.records import Node as NodeRecord

TUNNEL_ANNOTATION = "meshd.io/tunnel"
WIREGUARD_ANNOTATION = "network.cilium.io/wg-pub-key"
#: Annotations of a Node that other clusters may see.
PUBLISHED_ANNOTATIONS = ("meshd.io/", "network.cilium.io/")
#: What ClusterMesh's own writer says; readers replace it.
SOURCE = "custom-resource"


def node_record(node: Node, scope: Scope) -> tuple[NodeRecord, list[str]]:
    """The record, and a sentence for each address or PodCIDR that was left out."""
    problems: list[str] = []
    cidrs = _pod_cidrs(node, problems)
    ipv4 = [CIDR(ip, mask) for ip, mask, version in cidrs if version == 4]
    ipv6 = [CIDR(ip, mask) for ip, mask, version in cidrs if version == 6]
    annotations = _annotations(node, scope)
    record = NodeRecord(
        name=node.metadata.name,
        cluster=scope.cluster,
        addresses=_addresses(node, problems),
        ipv4_cidr=ipv4[0] if ipv4 else None,
        ipv4_secondary_cidrs=list(ipv4[1:]) or None,
        ipv6_cidr=ipv6[0] if ipv6 else None,
        ipv6_secondary_cidrs=list(ipv6[1:]) or None,
        cluster_id=scope.cluster_id,
        source=SOURCE,
        labels=dict(sorted(node.metadata.labels.items())) or None,
        annotations=annotations or None,
        wireguard_pub_key=annotations.get(WIREGUARD_ANNOTATION, ""),
    )
    return record, problems


def _addresses(node: Node, problems: list[str]) -> list[NodeAddress] | None:
    """Addresses that are IPs; a Node's host names are no use to another cluster."""
    addresses = []
    for entry in node.status.addresses:
        if entry.type not in ("InternalIP", "ExternalIP", "CiliumInternalIP"):
            continue
        if ip := canonical_ip(entry.address):
            addresses.append(NodeAddress(entry.type, ip))
        else:
            problems.append(f"{entry.type} {entry.address!r} is not an IP address: left out")
    if not addresses:
        problems.append("status.addresses has no InternalIP or ExternalIP: no cluster can send to this node")
    return addresses or None


def _pod_cidrs(node: Node, problems: list[str]) -> list[tuple[str, str | None, int]]:
    cidrs: list[tuple[str, str | None, int]] = []
    for text in node.spec.pod_cidrs or [node.spec.pod_cidr]:
        if not text:
            continue
        try:
            network = ip_network(text, strict=False)
        except ValueError:
            problems.append(f"PodCIDR {text!r} is not a prefix: left out")
        else:
            cidr = CIDR.of(network)
            cidrs.append((cidr.ip, cidr.mask, network.version))
    return cidrs


def _annotations(node: Node, scope: Scope) -> dict[str, str]:
    tunnel = {TUNNEL_ANNOTATION: scope.tunnel} if scope.tunnel else {}
    own = {key: value for key, value in node.metadata.annotations.items() if key.startswith(PUBLISHED_ANNOTATIONS)}
    return dict(sorted((tunnel | own).items()))
