"""What the node's route tables shall hold, from what the clusters say."""

import pytest

from meshd.daemon.nodes import Nodes
from meshd.daemon.prefixes import Prefixes
from meshd.daemon.wantedroutes import BOTH, EXPORTS, ROUTES, WantedRoutes
from routing.plan import Settings
from tests.support.surroundings import answers
from tests.unit.meshd.daemon.test_nodes import record

OWN, REMOTE = record("cluster1", "n1", "172.18.1.11", "10.0.0.0/24"), record("cluster2", "n1", "172.18.2.11")
ROUTE, EXPORT = (ROUTES, "20.0.0.0/24", "dev 9 src 172.18.1.11"), (EXPORTS, "10.0.0.0/24", "unreachable")


@pytest.mark.parametrize(
    ("only", "expected"),
    [(BOTH, {ROUTE, EXPORT}), ({ROUTES}, {ROUTE}), ({EXPORTS}, {EXPORT}), (set[str](), set[tuple[str, str, str]]())],
)
def test_remote_prefixes_are_routed_and_our_own_exported(only: set[str], expected: set[tuple[str, str, str]]) -> None:
    rank = lambda cluster: (int(cluster[-1]),)  # noqa: E731
    nodes, prefixes = Nodes(Settings("cluster1", "n1"), rank), Prefixes("cluster1", rank, lambda record: None)
    wanted = WantedRoutes(nodes, prefixes, only)
    for node in (OWN, REMOTE, record("cluster1", "n2", "172.18.1.12", "10.0.1.0/24")):
        prefixes.update_nodes(node.cluster, [node.name], {node.name: node}.get)
        nodes.update(node.cluster, [node.name], {node.name: node}.get)
    nodes.surround(answers(nodes.needs()))
    nodes.replan()
    found = {(map, key.decode(), value.decode()) for (map, key), value in wanted.update().items() if value}
    assert found == expected
    assert wanted.update() == {}
    nodes.update("cluster1", ["n1"], lambda name: None)
    gone = {key.decode() for (map, key), value in wanted.update().items() if map == EXPORTS and value is None}
    assert gone == ({"10.0.0.0/24"} if EXPORTS in only else set())
