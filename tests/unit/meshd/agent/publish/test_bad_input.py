"""What contradicts itself or others: one outcome each, as docs/agent.md has it, and always a sentence that is shown."""

import json
from typing import Any

import pytest

from tests.support import kubernetes
from tests.unit.meshd.agent.publish.test_publisher import Desk
from wire import keys
from wire.keys import Kind

NAMES = {
    "global": "service.cilium.io/global",
    "old": "io.cilium/global-service",
    "affinity": "service.cilium.io/affinity",
}


def desk(*documents: dict[str, Any]) -> Desk:
    made = Desk()
    made.apply(*documents)
    return made


def problems(made: Desk) -> dict[str, tuple[str, ...]]:
    return {str(ref): reasons for ref, reasons in made.publisher.problems().items()}


def service(**spec: Any) -> dict[str, Any]:
    return kubernetes.service("web", "30.1.1.1", **spec)


def record(made: Desk, kind: Kind, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(made.desired[keys.record(kind, "c1", name)])
    return found


@pytest.mark.parametrize(
    ("annotations", "shared", "local", "words"),
    [
        ({"global": "true", "old": "false"}, True, True, "contradict each other: the first counts"),
        ({"global": "false", "old": "true"}, False, False, "contradict each other: the first counts"),
        ({"old": "maybe"}, False, True, "'maybe' is neither true nor false: the service is not global"),
        ({"global": "true", "affinity": "near"}, True, True, "affinity 'near' is unknown"),
    ],
)
def test_annotations(annotations: dict[str, str], shared: bool, local: bool, words: str) -> None:
    made = desk(service(annotations={NAMES[name]: value for name, value in annotations.items()}))
    assert (bool(made.names(Kind.SERVICE)), bool(made.names(Kind.LOCAL_SERVICE))) == (shared, local)
    (reason,) = problems(made)["Service default/web"]
    assert words in reason


def test_a_namespace_that_is_perhaps_global_is_not() -> None:
    odd = kubernetes.namespace("default")
    odd["metadata"]["annotations"] = {"clustermesh.cilium.io/global": "perhaps"}
    made = desk(service(), kubernetes.pod("p", "10.0.0.1"), odd)
    assert made.desired == {}
    assert "'perhaps' is neither true nor false" in problems(made)["Namespace default"][0]
    made.apply(kubernetes.namespace("default"))
    assert made.names(Kind.SERVICE) == {"default/web"}
    assert problems(made) == {}


def test_a_global_external_name_is_not_published() -> None:
    made = desk(service(type="ExternalName", externalName="example.org"))
    assert made.desired == {}
    assert problems(made) == {"Service default/web": ("an ExternalName service cannot be global: it is not published",)}


def test_ports_and_addresses_of_a_service_that_cannot_be_used_cost_themselves() -> None:
    ports: list[kubernetes.Document] = [
        {"name": "a", "port": 80},
        {"name": "a", "port": 81},
        {"name": "b", "port": 82, "protocol": "HTTP"},
        {"name": "c"},
    ]
    made = desk(kubernetes.service("web", "30.1.1.1", "30.1.1.999", ports=ports))
    assert record(made, Kind.SERVICE, "default/web")["frontends"] == {
        "30.1.1.1": {"a": {"Protocol": "TCP", "Port": 81}},
    }
    assert problems(made)["Service default/web"] == (
        "clusterIP '30.1.1.999' is not an IP address: left out",
        "2 ports are named 'a': the last is used",
        "port 'b': HTTP 82 cannot be carried: left out",
        "port 'c': TCP 0 cannot be carried: left out",
    )


def test_a_pod_loses_what_cannot_be_used_of_it() -> None:
    ports: list[kubernetes.Document] = [{"name": "http", "containerPort": 80}, {"name": "odd", "containerPort": 99999}]
    made = desk(kubernetes.pod("p", "10.0.0.1", "10.0.0.x", host_ip="node-1", ports=ports))
    ip = record(made, Kind.IP, "10.0.0.1")
    assert ip["NamedPorts"] == [{"Name": "http", "Port": 80, "Protocol": "TCP"}]
    assert ip["HostIP"] == ""
    assert made.names(Kind.IP) == {"10.0.0.1"}
    assert problems(made)["Pod default/p"] == (
        "podIP '10.0.0.x' is not an IP address: left out",
        "hostIP 'node-1' is not an IP address: nobody can reach the pod through the tunnel",
        "port 'odd': TCP 99999 cannot be carried: left out",
    )


def test_of_two_pods_with_one_address_one_has_it() -> None:
    made = desk(kubernetes.pod("b", "10.0.0.1"), kubernetes.pod("a", "10.0.0.1", terminating=True))
    assert made.ip("10.0.0.1").pod_name == "b"
    assert made.publisher.shared_addresses() == [("10.0.0.1", ["default/b", "default/a"])]


def test_nodes_whose_pod_cidrs_overlap_are_both_published() -> None:
    made = desk(kubernetes.node("a"), kubernetes.node("b", "172.18.1.12"))
    assert made.names(Kind.NODE) == {"a", "b"}
    ((ref, reason),) = made.publisher.overlapping_cidrs()
    assert (str(ref), reason) == (
        "Node b",
        "PodCIDR 10.0.0.0/24 overlaps 10.0.0.0/24 of node a: both claim its packets, give one another range",
    )
