"""Realises on the two nodes what the daemon plans from their records: asks the kernel, decides, writes map entries and
routes. Where a test would else write the entries by hand.
"""

from ipaddress import ip_network

from datapath.layout import MAPS
from meshd.daemon.nodes import Nodes
from meshd.daemon.prefixes import Prefixes
from meshd.daemon.survey import Survey
from meshd.daemon.underlay import underlay_mtu
from meshd.daemon.wantedroutes import ROUTES, WantedRoutes
from meshd.daemon.wishes import Wishes
from routing.hostroute import parse_host_route
from routing.plan import Mode, Route, Settings
from routing.routes import HostRoutes, remove_routes
from routing.tunnel import DEFAULT
from tests.support.twonodes import CLUSTER_IDS, Node, TwoNodes
from wire.records import CIDR, NodeAddress
from wire.records import Node as Record


def record(node: Node) -> Record:
    """What the node's cluster says of it."""
    number = CLUSTER_IDS[node.name]
    return Record(
        name=node.name,
        cluster=f"cluster{number}",
        cluster_id=number,
        addresses=[NodeAddress("InternalIP", str(node.underlay))],
        ipv4_cidr=CIDR.of(ip_network(f"10.{number}.0.0/24")),
        ipv6_cidr=CIDR.of(ip_network(f"fd00:{number}::/64")),
        annotations={"meshd.io/tunnel": str(DEFAULT)},
    )


def plan(mesh: TwoNodes, mode: Mode) -> dict[str, tuple[Route, ...]]:
    """Both nodes follow the plan from now on; the routes to the other one's prefixes, by the node that takes them."""
    return {here.name: _plan(here, there, mode) for here, there in ((mesh.a, mesh.b), (mesh.b, mesh.a))}


def _plan(here: Node, there: Node, mode: Mode) -> tuple[Route, ...]:
    own, other = record(here), record(there)
    settings = Settings(own.cluster, own.name, mode, underlay_version=here.underlay.version)
    rank = lambda cluster: (int(cluster.removeprefix("cluster")),)  # noqa: E731
    nodes, prefixes = Nodes(settings, rank), Prefixes(own.cluster, rank, lambda ip: None)
    wanted = WantedRoutes(nodes, prefixes)
    for each in (own, other):
        prefixes.update_nodes(each.cluster, [each.name], {each.name: each}.get)
        nodes.update(each.cluster, [each.name], {each.name: each}.get)
    programs, version = here.loaded.programs, here.underlay.version
    survey = Survey(DEFAULT, f"meshd:{programs.instance}", programs, lambda: underlay_mtu("eth0"), version)
    nodes.surround(here.namespace.call(lambda: survey.ask(nodes.needs())))
    wishes = nodes.replan()
    assert not survey.problems
    _write(here, wishes)
    routes = [parse_host_route(k.decode(), v.decode()) for (m, k), v in wanted.update().items() if m == ROUTES and v]
    here.namespace.call(remove_routes)
    here.namespace.call(lambda: HostRoutes().upsert(routes))
    return nodes.routes[f"{other.cluster}/{other.name}"]


def _write(node: Node, wishes: Wishes) -> None:
    for (map, key), value in wishes.items():
        assert map in MAPS
        if value is None:
            node.maps.delete(map, [key])
        else:
            node.maps.upsert(map, {key: value})
