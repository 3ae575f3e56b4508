from ipaddress import ip_address, ip_network

from routing.plan import RouteKind, plan_node
from wire.records import CIDR, Node, NodeAddress


def node(name: str, cluster: str, address: str, *prefixes: str) -> Node:
    cidrs = [CIDR.of(ip_network(prefix)) for prefix in prefixes]
    return Node(
        name=name,
        cluster=cluster,
        addresses=[NodeAddress("InternalIP", address)],
        ipv4_cidr=cidrs[0],
        ipv4_secondary_cidrs=list(cidrs[1:]) or None,
    )


def kinds(record: Node, **underlay: int) -> list[tuple[str, RouteKind, str | None]]:
    routes = plan_node(record, cluster="cluster1", node_name="node1", **underlay)
    assert all(route.reason for route in routes)
    return [(str(route.prefix), route.kind, str(route.endpoint) if route.endpoint else None) for route in routes]


def test_each_pod_cidr_has_the_way_of_its_node() -> None:
    assert kinds(node("node1", "cluster1", "172.18.1.11", "10.0.0.0/24")) == [
        ("10.0.0.0/24", RouteKind.LOCAL, "172.18.1.11")
    ]
    assert kinds(node("node2", "cluster1", "172.18.1.12", "10.0.1.0/24")) == [
        ("10.0.1.0/24", RouteKind.SAME_CLUSTER, "172.18.1.12")
    ]
    assert kinds(node("node1", "cluster2", "172.18.2.11", "20.0.0.0/24", "20.0.9.0/24")) == [
        ("20.0.0.0/24", RouteKind.TUNNEL, "172.18.2.11"),
        ("20.0.9.0/24", RouteKind.TUNNEL, "172.18.2.11"),
    ]


def test_a_node_without_an_address_of_the_underlay_is_unreachable() -> None:
    remote = node("node1", "cluster2", "172.18.2.11", "20.0.0.0/24")
    assert kinds(remote, underlay_version=6) == [("20.0.0.0/24", RouteKind.UNREACHABLE, None)]
    assert plan_node(remote, cluster="cluster1", node_name="node1")[0].endpoint == ip_address("172.18.2.11")
