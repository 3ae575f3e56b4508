from typing import Any

import pytest
import yaml

from meshd.agent.decoding import decode_object, kind_of
from meshd.agent.objects import ObjectKind, Ref
from meshd.agent.publish.policies import policy_name
from meshd.agent.sources.documents import parse_file
from tests.support import kubernetes
from tests.unit.meshd.agent.publish.test_publisher import Desk, ref
from wire import keys
from wire.keys import Kind


def rules(document: dict[str, Any]) -> bytes:
    kind = kind_of(document)
    assert kind
    _, decoded = decode_object(kind, document)
    value: bytes = getattr(decoded, "rules")  # noqa: B009 - the union has no such field
    return value


def value(desk: Desk, name: str) -> bytes:
    return desk.desired[keys.record(Kind.POLICY, "c1", name)]


def test_every_kind_has_its_own_place() -> None:
    desk = Desk()
    desk.apply(
        kubernetes.policy("p", namespace="shop"),
        kubernetes.cilium_policy("p", namespace="shop"),
        kubernetes.cilium_policy("p"),
    )
    assert desk.names(Kind.POLICY) == {
        "NetworkPolicy/shop/p",
        "CiliumNetworkPolicy/shop/p",
        "CiliumClusterwideNetworkPolicy/-/p",
    }
    for name in desk.names(Kind.POLICY):
        assert keys.parse(keys.record(Kind.POLICY, "c1", name)).name == name


def test_a_policy_follows_its_object() -> None:
    desk = Desk()
    document = kubernetes.policy("p", ingress=[])
    desk.apply(document)
    assert value(desk, "NetworkPolicy/default/p") == b'{"spec":{"ingress":[],"podSelector":{}}}'
    desk.apply(document)
    assert desk.said == set()
    desk.apply(kubernetes.policy("p"))
    assert value(desk, "NetworkPolicy/default/p") == b'{"spec":{"podSelector":{}}}'
    desk.apply(deletes=(ref(document),))
    assert desk.names(Kind.POLICY) == set()


def test_specs_are_kept_as_well() -> None:
    document = kubernetes.cilium_policy("p", specs=[{"endpointSelector": {}}, {"nodeSelector": {}}])
    assert rules(document) == b'{"specs":[{"endpointSelector":{}},{"nodeSelector":{}}]}'


def test_the_order_of_fields_makes_no_difference() -> None:
    one, other = kubernetes.policy("p", ingress=[], egress=[]), kubernetes.policy("p", egress=[], ingress=[])
    assert rules(one) == rules(other)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"spec": {"ingress": [{"from": [None]}]}}, b'{"spec":{"ingress":[{"from":[null]}]}}'),
        ({"spec": "all"}, b'{"spec":"all"}'),
        ({"spec": []}, b'{"spec":[]}'),
        ({"spec": None}, b"{}"),
        ({}, b"{}"),
    ],
)
def test_what_is_wrong_in_the_rules_is_left_to_who_enforces_them(given: dict[str, Any], kept: bytes) -> None:
    document = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"}, **given}
    assert rules(document) == kept


def test_wrong_labels_do_not_cost_a_policy() -> None:
    document = kubernetes.policy("p")
    document["metadata"]["labels"] = {"x": 1}
    assert rules(document)


@pytest.mark.parametrize("spec", ["&a [*a]", "{? [1, 2] : x}", "{1.5: x}"])
def test_what_json_cannot_say_is_a_problem_of_that_document(spec: str) -> None:
    head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n"
    content = parse_file("f.yaml", f"{head}spec: {spec}\n---\n{yaml.safe_dump(kubernetes.policy('q'))}".encode())
    assert list(content.objects) == [Ref(ObjectKind.NETWORK_POLICY, "default", "q")]
    assert len(content.problems) == 1


def test_a_clusterwide_policy_has_no_namespace() -> None:
    document = kubernetes.cilium_policy("p")
    document["metadata"]["namespace"] = "shop"
    assert policy_name(ref(document)) == "CiliumClusterwideNetworkPolicy/-/p"
