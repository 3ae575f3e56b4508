"""The plan as a table: what a node says, what is set, what the kernel says → the way, with its reason."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from routing.plan import End, Hop, Mode, Route, RouteKind, Settings, Surroundings, needed_hops, needed_tunnel, plan_node
from routing.tunnel import ANNOTATION, CILIUM, DEFAULT, Tunnel, parse_tunnel
from wire.records import CIDR, Node, NodeAddress

HERE = Settings("cluster1", "node1")
VXLAN = End(9, "md_vxlan", 1500)
CILIUMS = End(10, "md_vxlan8472", 1500)
US = ip_address("172.18.1.11")
FOUR, SIX = ip_address("172.18.2.11"), ip_address("fd00:172::2")
ON_LINK = Hop(2, "eth0", 1500, US)
ROUTED = replace(ON_LINK, gateway=ip_address("172.18.0.1"))
KERNEL = Surroundings({FOUR: ON_LINK, SIX: ON_LINK}, {DEFAULT: VXLAN, CILIUM: CILIUMS})


def node(
    name: str, cluster: str, *addresses: object, cidrs: str = "20.0.0.0/24", tunnel: str | None = "vxlan:8473"
) -> Node:
    prefixes = [ip_network(prefix) for prefix in cidrs.split()]
    four: list[CIDR | None] = [CIDR.of(prefix) for prefix in prefixes if prefix.version == 4]
    six: list[CIDR | None] = [CIDR.of(prefix) for prefix in prefixes if prefix.version == 6]
    return Node(
        name=name,
        cluster=cluster,
        addresses=[NodeAddress("InternalIP", str(address)) for address in addresses],
        ipv4_cidr=four[0] if four else None,
        ipv4_secondary_cidrs=four[1:] or None,
        ipv6_cidr=six[0] if six else None,
        ipv6_secondary_cidrs=six[1:] or None,
        annotations={ANNOTATION: tunnel} if tunnel else None,
    )


def way(route: Route) -> str:
    """The kind, and what a packet needs for it."""
    device = route.end.device if route.end else route.hop.device if route.hop else "-"
    target = route.next_hop or (route.endpoint if route.kind is RouteKind.TUNNEL else "-")
    assert route.reason
    return f"{route.prefix} {route.kind} {device} {target}"


REMOTE = node("node1", "cluster2", FOUR)
DUAL = node("node1", "cluster2", FOUR, SIX, cidrs="20.0.0.0/24 fd00:20::/64")
ROWS = [
    ("this node", node("node1", "cluster1", US), HERE, KERNEL, ["20.0.0.0/24 local - -"], "this node"),
    ("our cluster's", node("node2", "cluster1", US), HERE, KERNEL, ["20.0.0.0/24 same-cluster - -"], "node2"),
    ("tunnel", REMOTE, HERE, KERNEL, [f"20.0.0.0/24 tunnel md_vxlan {FOUR}"], "vxlan:8473 on md_vxlan"),
    (
        "a node that announces no tunnel is Cilium's",
        node("node1", "cluster2", FOUR, tunnel=None),
        HERE,
        KERNEL,
        [f"20.0.0.0/24 tunnel md_vxlan8472 {FOUR}"],
        "vxlan:8472",
    ),
    (
        "a tunnel that is none",
        node("node1", "cluster2", FOUR, tunnel="gre:1"),
        HERE,
        KERNEL,
        ["20.0.0.0/24 unreachable - -"],
        "announces tunnel 'gre:1' is not vxlan:PORT or geneve:PORT",
    ),
    (
        "a device that cannot be had",
        node("node1", "cluster2", FOUR, tunnel="geneve:6081"),
        HERE,
        replace(KERNEL, ends={parse_tunnel("geneve:6081"): "this kernel has no geneve"}),
        ["20.0.0.0/24 unreachable - -"],
        "this kernel has no geneve",
    ),
    (
        "no address of the underlay",
        REMOTE,
        replace(HERE, underlay_version=6),
        KERNEL,
        ["20.0.0.0/24 unreachable - -"],
        "no IPv6 node address",
    ),
    (
        "an IPv6 underlay carries both families",
        DUAL,
        replace(HERE, underlay_version=6),
        KERNEL,
        [f"20.0.0.0/24 tunnel md_vxlan {SIX}", f"fd00:20::/64 tunnel md_vxlan {SIX}"],
        "md_vxlan",
    ),
    (
        "direct, on-link, each family by its own address",
        DUAL,
        replace(HERE, mode=Mode.DIRECT),
        KERNEL,
        [f"20.0.0.0/24 direct eth0 {FOUR}", f"fd00:20::/64 direct eth0 {SIX}"],
        "on-link",
    ),
    (
        "direct, but behind a router",
        REMOTE,
        replace(HERE, mode=Mode.DIRECT),
        replace(KERNEL, hops={FOUR: ROUTED}),
        ["20.0.0.0/24 unreachable - -"],
        "not on-link but behind 172.18.0.1",
    ),
    (
        "direct, no route",
        REMOTE,
        replace(HERE, mode=Mode.DIRECT),
        replace(KERNEL, hops={FOUR: None}),
        ["20.0.0.0/24 unreachable - -"],
        "no route to 172.18.2.11",
    ),
    (
        "hybrid takes the direct way where there is one",
        REMOTE,
        replace(HERE, mode=Mode.HYBRID),
        KERNEL,
        [f"20.0.0.0/24 direct eth0 {FOUR}"],
        "on-link",
    ),
    (
        "hybrid takes the tunnel elsewhere, and says why",
        REMOTE,
        replace(HERE, mode=Mode.HYBRID),
        replace(KERNEL, hops={FOUR: ROUTED}),
        [f"20.0.0.0/24 tunnel md_vxlan {FOUR}"],
        "mode hybrid, 172.18.2.11 is not on-link",
    ),
    (
        "hybrid per family",
        node("node1", "cluster2", FOUR, cidrs="20.0.0.0/24 fd00:20::/64"),
        replace(HERE, mode=Mode.HYBRID),
        KERNEL,
        [f"20.0.0.0/24 direct eth0 {FOUR}", f"fd00:20::/64 tunnel md_vxlan {FOUR}"],
        "",
    ),
    (
        "routers of a subnet group carry pods' packets",
        REMOTE,
        replace(HERE, mode=Mode.HYBRID, subnets=((ip_network("172.18.1.0/24"), ip_network("172.18.2.0/24")),)),
        replace(KERNEL, hops={FOUR: ROUTED}),
        ["20.0.0.0/24 direct eth0 172.18.0.1"],
        "same subnet group",
    ),
    (
        "another group's do not",
        REMOTE,
        replace(HERE, mode=Mode.HYBRID, subnets=((ip_network("172.18.1.0/24"),), (ip_network("172.18.2.0/24"),))),
        replace(KERNEL, hops={FOUR: ROUTED}),
        [f"20.0.0.0/24 tunnel md_vxlan {FOUR}"],
        "not on-link",
    ),
    (
        "a learned route is used",
        REMOTE,
        replace(HERE, mode=Mode.DIRECT),
        replace(KERNEL, hops={FOUR: ROUTED}, learned={ip_network("20.0.0.0/24"): ROUTED}),
        ["20.0.0.0/24 direct eth0 172.18.0.1"],
        "learned from the routing daemon, via 172.18.0.1",
    ),
    (
        "a peer's own mode",
        REMOTE,
        replace(HERE, peers={"cluster2": Mode.DIRECT, "cluster3": Mode.TUNNEL}),
        KERNEL,
        [f"20.0.0.0/24 direct eth0 {FOUR}"],
        "on-link",
    ),
]


NAMES = [row[0] for row in ROWS]


@pytest.mark.parametrize(("record", "settings", "kernel", "ways", "reason"), [row[1:] for row in ROWS], ids=NAMES)
def test_the_way(record: Node, settings: Settings, kernel: Surroundings, ways: list[str], reason: str) -> None:
    routes = plan_node(record, settings, kernel)
    assert [way(route) for route in routes] == ways
    assert all(reason in route.reason for route in routes)


def test_what_the_kernel_has_to_be_asked() -> None:
    assert needed_tunnel(REMOTE, HERE) == DEFAULT
    assert needed_hops(REMOTE, HERE) == ()
    assert needed_tunnel(DUAL, replace(HERE, mode=Mode.DIRECT)) is None
    assert needed_hops(DUAL, replace(HERE, mode=Mode.HYBRID)) == (FOUR, SIX)
    own = node("node2", "cluster1", US)
    assert (needed_tunnel(own, HERE), needed_hops(own, replace(HERE, mode=Mode.HYBRID))) == (None, ())


def test_what_was_not_asked_yet_is_said() -> None:
    blank = Surroundings()
    assert "not there yet" in plan_node(REMOTE, HERE, blank)[0].reason
    assert "not known yet" in plan_node(REMOTE, replace(HERE, mode=Mode.DIRECT), blank)[0].reason


def test_a_tunnel_and_its_text() -> None:
    for text in ("vxlan:8472", "geneve:6081"):
        assert str(parse_tunnel(text)) == text
    assert Tunnel(DEFAULT.encapsulation, 8473) == DEFAULT
    assert (DEFAULT.own_device, CILIUM.device) == ("md_vxlan", "md_vxlan8472")
    for wrong in ("", "vxlan", "vxlan:", "vxlan:0", "vxlan:65536", "VXLAN:1", "vxlan:8472 ", "gre:1"):
        with pytest.raises(ValueError, match="is not vxlan:PORT"):
            parse_tunnel(wrong)


def test_a_way_that_carries_less_than_its_device() -> None:
    """By tunnel or direct; one that carries more is as it is."""
    hybrid = replace(HERE, mode=Mode.HYBRID)
    (tunnel,) = plan_node(REMOTE, HERE, KERNEL, 1400)
    (direct,) = plan_node(REMOTE, hybrid, KERNEL, 1400)
    assert tunnel.end == replace(VXLAN, mtu=1400)
    assert direct.hop == replace(ON_LINK, mtu=1400)
    assert [route.reason.partition("; ")[2] for route in (tunnel, direct)] == ["the way carries 1400 of 1500 bytes"] * 2
    assert plan_node(REMOTE, HERE, KERNEL, 9000) == plan_node(REMOTE, HERE, KERNEL)
