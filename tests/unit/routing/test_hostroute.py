from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from routing.hostroute import HostRoute, host_route, parse_host_route
from routing.plan import End, Hop, Route, RouteKind
from wire.records import IPNetwork

PREFIX, US, THEM = ip_network("20.0.0.0/24"), ip_address("172.18.1.11"), ip_address("172.18.2.11")
HOP = Hop(2, "eth0", 1500, US)
SIX = ip_network("fd00:20::/64")
END = End(9, "md_vxlan", 1500)


def route(kind: RouteKind, **more: object) -> Route:
    return Route(PREFIX, "cluster2", "n1", THEM, kind, "because", **more)  # type: ignore[arg-type]


def test_the_nodes_own_packets_take_the_way_of_the_pods() -> None:
    assert str(host_route(route(RouteKind.TUNNEL, end=END), source=US)) == "20.0.0.0/24 dev 9 src 172.18.1.11"
    direct = host_route(route(RouteKind.DIRECT, hop=HOP, next_hop=THEM), source=US)
    assert str(direct) == "20.0.0.0/24 dev 2 via 172.18.2.11 src 172.18.1.11"


@pytest.mark.parametrize(("underlay", "mtu"), [(1500, 0), (1330, 0), (1329, 1279), (1280, 1230)])
def test_where_less_fits_than_a_device_may_have_the_route_says_it(underlay: int, mtu: int) -> None:
    """IPv6 needs 1280 bytes of a device."""
    end = replace(END, mtu=underlay)
    made = host_route(route(RouteKind.TUNNEL, end=end), source=US)
    assert made is not None
    assert made.mtu == mtu


@pytest.mark.parametrize(("prefix", "path", "mtus"), [(PREFIX, 1400, [1350, 1400]), (SIX, 1300, [1280, 1300])])
def test_where_the_way_carries_less_the_route_says_it(prefix: IPNetwork, path: int, mtus: list[int]) -> None:
    tunnel = route(RouteKind.TUNNEL, end=replace(END, mtu=path), narrow=True)
    direct = route(RouteKind.DIRECT, hop=replace(HOP, mtu=path), next_hop=THEM, narrow=True)
    made = [host_route(replace(each, prefix=prefix), source=None) for each in (tunnel, direct)]
    assert [each.mtu for each in made if each] == mtus


@pytest.mark.parametrize("kind", [RouteKind.LOCAL, RouteKind.SAME_CLUSTER, RouteKind.UNREACHABLE])
def test_what_is_not_ours_to_carry_has_no_route_of_ours(kind: RouteKind) -> None:
    assert host_route(route(kind), source=US) is None


def test_what_a_routing_daemon_put_there_needs_no_route_of_ours() -> None:
    assert host_route(route(RouteKind.DIRECT, hop=HOP, next_hop=THEM, learned=True), source=US) is None


@pytest.mark.parametrize(
    "made",
    [
        HostRoute(PREFIX, 9),
        HostRoute(PREFIX, 9, source=US),
        HostRoute(PREFIX, 2, THEM, US, 1450),
        HostRoute(ip_network("fd00:20::/64"), 2, ip_address("fd00::1")),
    ],
    ids=str,
)
def test_a_route_comes_back_from_its_text(made: HostRoute) -> None:
    assert parse_host_route(str(made.prefix), made.way) == made


def test_text_that_is_no_way() -> None:
    with pytest.raises(ValueError, match="no way"):
        parse_host_route("20.0.0.0/24", "via 172.18.2.11")
