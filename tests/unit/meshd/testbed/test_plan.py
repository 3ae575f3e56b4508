from ipaddress import IPv4Address
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from meshd.testbed.plan import CLUSTERS, UNDERLAY, plan_cluster

KIND = Path(__file__).parents[4] / "kind-clusters"


def test_addresses_are_those_of_the_architecture() -> None:
    cluster = plan_cluster(2)
    assert (cluster.name, cluster.cluster_id, str(cluster.control_plane)) == ("cluster2", 2, "172.18.2.10")
    assert [str(node.address) for node in cluster.nodes] == ["172.18.2.11", "172.18.2.12"]
    assert [str(node.pod_cidr) for node in cluster.nodes] == ["20.0.0.0/24", "20.0.1.0/24"]
    assert str(cluster.service_subnet) == "30.2.0.0/16"


def test_gateway_is_no_pod_address() -> None:
    assert plan_cluster(1).nodes[0].gateway == IPv4Address("10.0.0.254")


def test_clusters_do_not_overlap() -> None:
    networks = [network for c in CLUSTERS.values() for network in (c.pod_subnet, c.service_subnet)]
    assert not [pair for pair in combinations([*networks, UNDERLAY], 2) if pair[0].overlaps(pair[1])]


def test_unknown_node_names_the_known_ones() -> None:
    with pytest.raises(KeyError, match="only node1, node2"):
        plan_cluster(1).node("node9")


@pytest.mark.parametrize("name", CLUSTERS)
def test_kind_configuration_has_the_same_plan(name: str) -> None:
    kind = yaml.safe_load((KIND / f"{name}.yaml").read_text())
    plan = CLUSTERS[name]
    assert kind["name"] == name
    assert kind["networking"] == {"podSubnet": str(plan.pod_subnet), "serviceSubnet": str(plan.service_subnet)}
    workers = [node["labels"]["testbed.meshd.io/node"] for node in kind["nodes"] if node["role"] == "worker"]
    assert workers == [str(node.number) for node in plan.nodes]
