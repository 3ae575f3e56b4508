"""The netlink adapter on a real kernel.

      node
eth0 172.18.1.11/16 ── switch (172.18.2.11)      md_vxlan, theirs
     fd00:172::11/64
"""

import random
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from meshd.daemon.routetarget import KernelRoutes, RouteShape, RouteTarget
from meshd.daemon.wantedroutes import ROUTES
from meshd.reconcile.execution import execute
from meshd.reconcile.loop import Reconciler
from routing.devices import DeviceError, ensure_tunnel, ensure_vxlan, remove_tunnels
from routing.exports import Exports, remove_exports
from routing.hostroute import HostRoute
from routing.lookup import Lookup
from routing.plan import Hop
from routing.routes import HostRoutes, RouteError, remove_routes
from routing.tunnel import Encapsulation, Tunnel
from tests.support.kernelroutes import FakeExports, FakeRoutes
from tests.support.netns import Machine, Namespace, link, machine
from wire.records import IPNetwork

pytestmark = pytest.mark.root
ALIAS = "meshd:x"
FOUR, SIX = ip_address("172.18.1.11"), ip_address("fd00:172::11")
PREFIXES = [
    ip_network(text) for text in ("20.0.0.0/24", "20.0.1.0/24", "20.0.0.0/16", "fd00:20::/64", "fd00:20:1::/64")
]


@pytest.fixture
def made() -> Iterator[Machine]:
    with machine() as each:
        yield each


@pytest.fixture
def node(made: Machine) -> Namespace:
    node, switch = made.namespace("node"), made.namespace("switch")
    link(switch, "to-node", node, "eth0")
    switch.ip("addr", "add", "172.18.2.11/16", "dev", "to-node")
    node.ip("addr", "add", f"{FOUR}/16", "dev", "eth0")
    node.ip("addr", "add", f"{SIX}/64", "dev", "eth0", "nodad")
    return node


def index(node: Namespace, device: str) -> int:
    return int(node.ip("-o", "link", "show", "dev", device).split(":")[0])


def routing_of(node: Namespace) -> list[str]:
    """Routes and rules but the kernel's own routes: those of an address come a little after it on a busy machine."""
    shown = [node.ip(family, "route", "show", "table", "all") for family in ("-4", "-6")]
    return [line for text in shown for line in text.splitlines() if "proto kernel" not in line] + [node.ip("rule")]


def ways(node: Namespace) -> list[HostRoute]:
    """Every prefix by tunnel, by a next hop, with an MTU or without a source."""
    tunnel, eth0 = node.call(lambda: ensure_vxlan(alias=ALIAS)).ifindex, index(node, "eth0")
    hops = {4: ip_address("172.18.2.11"), 6: ip_address("fd00:172::12")}
    sources = {4: FOUR, 6: SIX}
    made = []
    for prefix in PREFIXES:
        version = prefix.version
        made += [
            HostRoute(prefix, tunnel, source=sources[version]),
            HostRoute(prefix, eth0, gateway=hops[version], source=sources[version]),
            HostRoute(prefix, eth0, gateway=hops[version], source=sources[version], mtu=1400),
        ]
    return made


@pytest.mark.parametrize("seed", range(4))
def test_any_walk_ends_the_same_on_the_fake_and_on_the_kernel(node: Namespace, seed: int) -> None:
    """The reconciler walks on both; now and then the fake refuses, or the daemon restarts."""
    walk, choices = random.Random(seed), ways(node)
    fake = FakeRoutes()
    fake.fails = lambda prefix: walk.random() < 0.2
    targets: list[KernelRoutes] = [fake, _Inside(node)]
    reconcilers = [Reconciler("routes", RouteTarget(target, FakeExports()), RouteShape()) for target in targets]
    for _ in range(30):
        route, action = walk.choice(choices), walk.random()
        if action < 0.1:
            reconcilers = [_restarted(old, target) for old, target in zip(reconcilers, targets, strict=True)]
        for reconciler in reconcilers:
            key = str(route.prefix).encode()
            reconciler.delta.want(ROUTES, key, route.way.encode() if action < 0.7 else None)
            settle(reconciler)
    fake.fails = lambda prefix: False
    for reconciler in reconcilers:
        for item in list(reconciler.retries.failures):
            reconciler.delta.touch(item)
        settle(reconciler)
    dumped = [sorted(map(str, target.dump().values())) for target in targets]
    assert dumped[0] == dumped[1]
    wanted = reconcilers[0].delta.desired[ROUTES]
    assert dumped[0] == sorted(f"{key.decode()} {way.decode()}" for key, way in wanted.items())


class _Inside:
    """The real routes of a namespace."""

    def __init__(self, node: Namespace) -> None:
        self._node, self._routes = node, HostRoutes()

    def dump(self) -> dict[IPNetwork, HostRoute]:
        return self._node.call(self._routes.dump)

    def standing(self) -> dict[IPNetwork, HostRoute]:
        return self._node.call(self._routes.standing)

    def upsert(self, routes: Iterable[HostRoute]) -> None:
        self._node.call(lambda: self._routes.upsert(list(routes)))

    def delete(self, prefixes: Iterable[IPNetwork]) -> None:
        self._node.call(lambda: self._routes.delete(list(prefixes)))


def _restarted(old: Reconciler, target: KernelRoutes) -> Reconciler:
    new = Reconciler("routes", RouteTarget(target, FakeExports()), RouteShape())
    new.delta.restore(ROUTES, new.target.dump(ROUTES))
    for key, way in old.delta.desired[ROUTES].items():
        new.delta.want(ROUTES, key, way)
    new.delta.prune(ROUTES, lambda key, value: True)
    return new


def settle(reconciler: Reconciler) -> None:
    for item in list(reconciler.retries.failures):
        reconciler.delta.touch(item)
    round = reconciler.delta.plan()
    if round is not None:
        delta = reconciler.delta
        reconciler.record(execute(round, reconciler.target, reconciler.shape, delta.realised, delta.possible), 0.0)


def test_others_routes_and_rules_are_never_touched(node: Namespace) -> None:
    for command in (
        "route add 198.51.100.0/24 via 172.18.2.11 table 109",
        "route add 20.0.0.0/24 via 172.18.2.11",
        "route add blackhole 20.0.1.0/24",
        "-6 route add fd00:20::/64 via fd00:172::12",
        "rule add from all lookup 109 pref 40000",
    ):
        node.ip(*command.split())
    before = routing_of(node)
    routes = HostRoutes()
    wanted = ways(node)[::3]
    node.call(lambda: routes.upsert(wanted))
    for address in ("20.0.0.1", "20.0.1.1", "fd00:20::1"):
        assert "dev md_vxlan" in node.ip("route", "get", address)
    assert set(node.call(routes.dump)) == set(PREFIXES)
    node.call(lambda: routes.upsert(wanted))
    assert node.ip("rule").count("proto 109") == 1
    assert len(node.call(remove_routes)) == len(PREFIXES) + 2
    assert node.call(lambda: remove_tunnels(alias=ALIAS)) == ("md_vxlan",)
    assert routing_of(node) == before
    assert node.call(remove_routes) == ()


def test_no_rule_stands_where_the_main_table_has_no_other_route_for_a_prefix(node: Namespace) -> None:
    """A rule costs every packet of the node; a route for a wider or a narrower prefix is no reason for one."""
    rules = node.ip("rule"), node.ip("-6", "rule")
    node.ip("route", "add", "20.0.0.0/8", "via", "172.18.2.11")
    node.ip("route", "add", "20.0.0.0/26", "via", "172.18.2.11")
    wanted, routes = ways(node)[::3], HostRoutes()
    node.call(lambda: routes.upsert(wanted))
    assert (node.ip("rule"), node.ip("-6", "rule")) == rules
    assert node.call(routes.dump) == {route.prefix: route for route in wanted}
    assert node.ip("route", "show", "proto", "109").count("metric 32109") == 3
    assert node.ip("-6", "route", "show", "proto", "109").count("metric 32109") == 2
    assert "dev md_vxlan" in node.ip("route", "get", "20.0.0.100")
    assert "via 172.18.2.11" in node.ip("route", "get", "20.0.0.1"), "the host's narrower one"


def test_a_route_moves_to_the_table_and_back_with_what_the_host_has(node: Namespace) -> None:
    route, routes = ways(node)[0], HostRoutes()
    other = ["20.0.0.0/24", "via", "172.18.2.11"]
    for command, table in (("add", "109"), ("del", "254")):
        node.ip("route", command, *other)
        assert node.call(routes.standing) == {} or (command == "add" and not node.call(routes.dump))
        for _ in range(2):
            node.call(lambda: routes.upsert([route]))
            if table == "109":
                node.ip("rule", "del", "pref", "32109")
                assert node.call(routes.standing) == {}, "nothing leads there"
                node.call(lambda: routes.upsert([route]))
        shown = node.ip("-d", "route", "show", "table", table, "proto", "109")
        assert "20.0.0.0/24 dev md_vxlan" in shown
        assert set(node.call(routes.standing)) == {route.prefix}
        assert node.ip("-d", "route", "show", "table", "all", "proto", "109").count("20.0.0.0/24") == 1
        assert "dev md_vxlan" in node.ip("route", "get", "20.0.0.1")


def test_exports_stand_in_a_table_that_nothing_routes_by(node: Namespace) -> None:
    """Foreign routes of the table stay; adopting and removing is idempotent."""
    node.ip("route", "add", "198.51.100.0/24", "via", "172.18.2.11", "table", "110")
    before = routing_of(node)
    own = [ip_network("10.0.0.0/24"), ip_network("fd00:10::/64")]
    for _ in range(2):
        node.call(lambda: Exports().upsert(own))
    assert node.call(Exports().dump) == set(own)
    assert "unreachable 10.0.0.0/24 proto 109" in node.ip("route", "show", "table", "110")
    assert "unreachable" not in node.ip("route", "show")
    assert "198.51.100.0/24" in node.ip("route", "show", "table", "110")
    assert node.call(remove_exports) == ("export 10.0.0.0/24", "export fd00:10::/64")
    assert node.call(remove_exports) == ()
    assert routing_of(node) == before


def test_the_hosts_own_rules_come_first(node: Namespace) -> None:
    node.ip("route", "add", "20.0.0.0/24", "via", "172.18.2.11", "table", "77")
    node.ip("rule", "add", "to", "20.0.0.0/24", "lookup", "77", "pref", "100")
    node.call(lambda: HostRoutes().upsert(ways(node)[:1]))
    assert "via 172.18.2.11 dev eth0 table 77" in node.ip("route", "get", "20.0.0.1")


def test_a_route_that_the_kernel_refuses_is_named(node: Namespace) -> None:
    route = HostRoute(PREFIXES[0], index(node, "eth0"), gateway=ip_address("192.0.2.1"))
    with pytest.raises(RouteError, match=r"route 20.0.0.0/24 dev \d+ via 192.0.2.1: .*next hop on-link"):
        node.call(lambda: HostRoutes().upsert([route]))
    node.call(lambda: HostRoutes().delete([PREFIXES[0]]))


def test_a_route_that_is_refused_costs_no_other_one(node: Namespace) -> None:
    """More than one datagram of them; what is absent may be removed."""
    eth0, routes = index(node, "eth0"), HostRoutes()
    wanted = [HostRoute(ip_network(f"20.0.{number}.0/24"), eth0) for number in range(100)]
    bad = HostRoute(ip_network("20.1.0.0/24"), eth0, gateway=ip_address("192.0.2.1"))
    with pytest.raises(RouteError, match=r"20.1.0.0/24"):
        node.call(lambda: routes.upsert([*wanted[:50], bad, *wanted[50:]]))
    assert node.call(routes.dump) == {route.prefix: route for route in wanted}
    node.call(lambda: routes.delete([bad.prefix, *(route.prefix for route in wanted[1:])]))
    assert set(node.call(routes.dump)) == {wanted[0].prefix}


def test_the_way_to_a_node(node: Namespace) -> None:
    eth0 = index(node, "eth0")
    node.ip("route", "add", "192.0.2.0/24", "via", "172.18.2.11", "mtu", "1400")
    node.ip("route", "add", "unreachable", "203.0.113.0/24")
    asked = {text: ip_address(text) for text in ("172.18.3.11", "192.0.2.7", "203.0.113.1", "198.51.100.1", str(FOUR))}

    def look() -> object:
        with Lookup() as lookup:
            return lookup.hops([*asked.values(), ip_address("fd00:172::12")])

    assert node.call(look) == {
        asked["172.18.3.11"]: Hop(eth0, "eth0", 1500, FOUR),
        asked["192.0.2.7"]: Hop(eth0, "eth0", 1400, FOUR, ip_address("172.18.2.11")),
        asked["203.0.113.1"]: None,
        asked["198.51.100.1"]: None,
        FOUR: None,
        ip_address("fd00:172::12"): Hop(eth0, "eth0", 1500, SIX),
    }


def test_routes_of_a_routing_daemon_are_learned_and_no_others(node: Namespace) -> None:
    for protocol in ("bird", "static", "109"):
        octet = {"bird": 0, "static": 1, "109": 2}[protocol]
        node.ip("route", "add", f"20.0.{octet}.0/24", "via", "172.18.2.11", "proto", protocol)
    node.ip("route", "add", "default", "via", "172.18.2.11", "proto", "bird")
    several = ["nexthop", "via", "172.18.2.12", "dev", "eth0", "nexthop", "via", "172.18.2.13", "dev", "eth0"]
    node.ip("route", "add", "20.0.3.0/24", "proto", "bird", *several)

    def look() -> object:
        with Lookup() as lookup:
            return lookup.learned()

    hop = Hop(index(node, "eth0"), "eth0", 1500, None, ip_address("172.18.2.11"))
    first = replace(hop, gateway=ip_address("172.18.2.12"))
    assert node.call(look) == {ip_network("20.0.0.0/24"): hop, ip_network("20.0.3.0/24"): first}


def test_a_device_for_each_port_and_its_mtu(node: Namespace) -> None:
    own, cilium = Tunnel(Encapsulation.VXLAN, 8473), Tunnel(Encapsulation.VXLAN, 8472)

    def ensure(mtu: int) -> list[bool]:
        made = [
            ensure_tunnel(own, alias=ALIAS, name=own.own_device, mtu=mtu),
            ensure_tunnel(cilium, alias=ALIAS, name=cilium.device, mtu=mtu),
        ]
        return [device.created for device in made]

    assert node.call(lambda: ensure(1450)) == [True, True]
    assert node.call(lambda: ensure(1350)) == [False, False]
    shown = node.ip("-d", "link", "show", "md_vxlan8472")
    assert "mtu 1350" in shown
    assert "dstport 8472" in shown
    assert "NOARP" in shown


def test_a_port_that_another_device_holds_is_named_with_the_remedy(node: Namespace) -> None:
    node.ip("link", "add", "flannel.1", "type", "vxlan", "id", "1", "dstport", "8473", "dev", "eth0")
    with pytest.raises(DeviceError, match=r"UDP port 8473 is held by the device flannel.1 .*--tunnel"):
        node.call(lambda: ensure_vxlan(alias=ALIAS))
    assert "md_vxlan" not in node.ip("link"), "nothing is left behind"
    node.ip("link", "set", "flannel.1", "up")


def test_geneve_where_the_kernel_has_it_and_a_clear_word_where_not(node: Namespace) -> None:
    geneve = Tunnel(Encapsulation.GENEVE, 6081)
    has_it = False
    with suppress(RuntimeError):
        node.ip("link", "add", "probe", "type", "geneve", "external")
        node.ip("link", "del", "probe")
        has_it = True
    if has_it:
        device = node.call(lambda: ensure_tunnel(geneve, alias=ALIAS, name=geneve.own_device, mtu=1450))
        assert device.name == "md_geneve"
        return
    with pytest.raises(DeviceError, match="this kernel has no geneve devices: CONFIG_GENEVE is needed"):
        node.call(lambda: ensure_tunnel(geneve, alias=ALIAS, name=geneve.own_device))
    assert "md_geneve" not in node.ip("link")
