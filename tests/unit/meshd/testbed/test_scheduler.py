from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Any

import pytest

from meshd.config import ConfigError
from meshd.testbed.plan import plan_cluster
from meshd.testbed.scheduler import IP_ANNOTATION, NODE_LABEL, Placement, place

CLUSTER = plan_cluster(1)


def placed(*, ip: str | None = None, taken: Sequence[str] = (), **spec: Any) -> Placement:
    annotations = {IP_ANNOTATION: ip} if ip else {}
    manifest = {"metadata": {"name": "a", "namespace": "default", "annotations": annotations}, "spec": spec}
    return place(manifest, CLUSTER, [IPv4Address(address) for address in taken])


def test_the_asked_address_decides_the_node() -> None:
    assert placed(ip="10.0.1.7") == Placement(CLUSTER.nodes[1], IPv4Address("10.0.1.7"))


def test_without_an_annotation_the_first_free_address() -> None:
    found = placed(taken=["10.0.1.1"], nodeSelector={NODE_LABEL: "2"})
    assert found == Placement(CLUSTER.nodes[1], IPv4Address("10.0.1.2"))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"ip": "10.0.0.1", "taken": ["10.0.0.1"]}, "belongs to another pod"),
        ({"ip": "10.0.0.1", "nodeName": "node2"}, "in no PodCIDR"),
        ({"ip": "20.0.0.1"}, "in no PodCIDR"),
        ({"ip": "10.0.0.254"}, "in no PodCIDR"),
        ({"ip": "ten"}, IP_ANNOTATION),
        ({"nodeSelector": {"disk": "ssd"}}, "no node fits"),
        ({"taken": [f"10.0.0.{i}" for i in range(1, 254)], "nodeName": "node1"}, "no free address"),
    ],
)
def test_what_cannot_be_had_is_an_error_that_names_the_pod(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"pod default/a.*{reason}"):
        placed(**arguments)
