"""What makes a policy invalid, and that nothing makes parsing fail."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.model import Direction, PolicyKind, PolicyRef
from policy.parsing import parse_policy
from policy.scope import Scope

SCOPE = Scope("cluster1")
CILIUM = PolicyRef(PolicyKind.CILIUM, "default", "p")
KUBERNETES = PolicyRef(PolicyKind.KUBERNETES, "default", "p")


def problem(ref: PolicyRef, spec: Any) -> str:
    return parse_policy(ref, {"spec": spec}, SCOPE).problem


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"fromRequires": [{}]}, "spec.ingress[0].fromRequires: not supported"),
        ({"fromEndpoints": [{}], "authentication": {"mode": "required"}}, "authentication: not supported"),
        ({"fromEndpoints": [{}], "fromCIDR": ["10.0.0.0/8"]}, "combining fromEndpoints and fromCIDR"),
        ({"fromEntities": ["kube-apiserver"]}, "spec.ingress[0].fromEntities[0]: entity 'kube-apiserver'"),
        ({"fromEndpoints": [{"matchLabels": {"container:id": "x"}}]}, "source 'container'"),
        ({"fromCIDR": ["10.0.0.0/33"]}, "spec.ingress[0].fromCIDR[0]: '10.0.0.0/33' is not a prefix"),
        ({"fromCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8"]}]}, "is not inside 10.0.0.0/8"),
        ({"fromCIDRSet": [{"cidrGroupRef": "g"}]}, "fromCIDRSet[0].cidr: must be a prefix"),
        ({"toPorts": [{"ports": [{"port": "80", "protocol": "ICMP"}]}]}, "protocol: 'ICMP'"),
        ({"toPorts": [{"ports": [{"port": "70000"}]}]}, "70000 is no port"),
        ({"toPorts": [{"ports": [{"port": "80", "endPort": 79}]}]}, "79 is below port 80"),
        ({"toPorts": [{"ports": [{"port": "80"}], "serverNames": ["x"]}]}, "toPorts[0].serverNames: not supported"),
        ({"toPorts": [{"ports": []}]}, "needs at least one"),
        ({"icmps": [{"fields": [{"type": "Nonsense"}]}]}, "'Nonsense' is no ICMP type of IPv4"),
        ({"icmps": [{"fields": [{"type": 8}]}], "toPorts": []}, "cannot be combined with toPorts"),
        ({"fromEndpoints": [{}], "icmps": [{}]}, "spec.ingress[0].icmps[0].fields: needs at least one"),
        ({"icmps": [{"fields": [{"type": "\u00b2"}]}]}, "is no ICMP type of IPv4"),
        ({"toPorts": [{"ports": [{"port": "\u00b2"}]}]}, "port: '\u00b2' is neither a port nor a name"),
        ({"toPorts": [{"ports": [{"port": "9" * 5000}]}]}, "is neither a port nor a name"),
        ({"toPorts": [{"ports": [{"port": "a_b"}]}]}, "'a_b' is neither a port nor a name"),
        ({"toPorts": [{"ports": [{"port": "name-of-16-chars"}]}]}, "is neither a port nor a name"),
        ("text", "spec.ingress[0]: must be an object, is text"),
    ],
)
def test_cilium(rule: Any, words: str) -> None:
    assert words in problem(CILIUM, {"endpointSelector": {}, "ingress": [rule]})


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"podSelector": {}, "ingres": []}, "ingres: not supported"),
        ({"podSelector": {"matchLabels": {"a": 1}}}, "podSelector.matchLabels: 'a'"),
        ({"podSelector": {}, "policyTypes": ["In"]}, "policyTypes[0]: 'In' is neither"),
        ({"podSelector": {}, "ingress": [{"from": [{}]}]}, "ingress[0].from[0]: needs podSelector"),
        ({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "x"}}]}]}, "ingress[0].from[0].ipBlock.cidr"),
        ({"podSelector": {}, "ingress": [{"ports": [{"port": 0}]}]}, "0 is neither a port nor a name"),
        ({"podSelector": {}, "ingress": [{"ports": [{"endPort": 9}]}]}, "ingress[0].ports[0].endPort: needs a port"),
        ({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Gt"}]}}, "operator: 'Gt' is none of In"),
        ({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}, "In takes at least one"),
        ({"podSelector": {}, "ingress": [{"ports": [{"port": "80"}]}]}, "'80' is text: a number stands here without"),
        ({"podSelector": {}, "ingress": [{"ports": [{"port": "h ttp"}]}]}, "'h ttp' is neither a port nor a name"),
        ({"podSelector": {}, "policyTypes": [["Egress"]]}, "policyTypes[0]: ['Egress'] is neither"),
        ({"podSelector": {}, "policyTypes": "Egress"}, "policyTypes: must be a list, is text"),
        (None, "spec: must be an object"),
    ],
)
def test_kubernetes(spec: Any, words: str) -> None:
    assert words in problem(KUBERNETES, spec)


def test_an_invalid_policy_closes_the_directions_that_it_names() -> None:
    spec = {"endpointSelector": {"matchLabels": {"app": "x"}}, "egress": [{"toServices": [{}]}], "egressDeny": [{}]}
    policy = parse_policy(CILIUM, {"spec": spec}, SCOPE)
    (section,) = policy.sections
    assert section.closes == {Direction.EGRESS}
    assert [(rule.direction, rule.deny, rule.peers) for rule in section.rules] == [(Direction.EGRESS, True, None)]


BOTH = frozenset(Direction)
INGRESS = frozenset([Direction.INGRESS])


@pytest.mark.parametrize(
    ("ref", "spec", "closed"),
    [
        (CILIUM, {"ingress": [{"fromGroups": [{}]}], "enableDefaultDeny": {"egress": True}}, BOTH),
        (CILIUM, {"ingress": [{"fromGroups": [{}]}], "enableDefaultDeny": {"egress": False}}, INGRESS),
        (CILIUM, {"ingress": {}, "egress": []}, INGRESS),
        (CILIUM, {"enableDefaultDeny": {"ingress": "yes", "egress": None}}, INGRESS),
        (KUBERNETES, {"policyTypes": "Egress"}, BOTH),
        (KUBERNETES, {"policyTypes": ["Ingress", "egress"]}, BOTH),
        (KUBERNETES, {"policyTypes": [], "egress": {}}, BOTH),
        (KUBERNETES, {"policyTypes": ["Ingress"], "egress": [{}], "ingress": [{"form": []}]}, INGRESS),
    ],
)
def test_what_names_a_direction(ref: PolicyRef, spec: dict[str, Any], closed: frozenset[Direction]) -> None:
    policy = parse_policy(ref, {"spec": {"endpointSelector": {}, **spec} if ref is CILIUM else spec}, SCOPE)
    assert policy.problem
    assert [section.closes for section in policy.sections] == [closed]


def test_a_selector_that_is_null_is_missing() -> None:
    """And selects nothing: an invalid policy of nodes closes no pods."""
    spec: dict[str, Any] = {"endpointSelector": None, "nodeSelector": {}, "ingress": [{"fromEntities": ["all"]}]}
    policy = parse_policy(PolicyRef(PolicyKind.CILIUM_CLUSTERWIDE, "", "p"), {"spec": spec}, SCOPE)
    assert "spec.nodeSelector: not supported" in policy.problem
    assert policy.sections == ()


def test_several_specs_are_several_sections_and_one_bad_one_closes_all() -> None:
    good = {"endpointSelector": {}, "ingress": [{"fromEntities": ["all"]}]}
    assert len(parse_policy(CILIUM, {"specs": [good, good]}, SCOPE).sections) == 2
    policy = parse_policy(CILIUM, {"specs": [good, {**good, "egress": [{"toFQDNs": []}]}]}, SCOPE)
    assert "specs[1].egress[0].toFQDNs" in policy.problem
    assert [section.rules for section in policy.sections] == [(), ()]


def test_a_host_policy_selects_nothing_and_says_so() -> None:
    policy = parse_policy(PolicyRef(PolicyKind.CILIUM_CLUSTERWIDE, "", "p"), {"spec": {"nodeSelector": {}}}, SCOPE)
    assert "spec.nodeSelector: not supported" in policy.problem
    assert policy.sections == ()


LABELS = {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "In", "values": ["d"]}]}
PORTS = [{"ports": [{"port": "80", "endPort": 90, "protocol": "TCP"}, {"port": "http"}]}]
WHOLE: dict[PolicyRef, dict[str, Any]] = {
    KUBERNETES: {
        "podSelector": LABELS,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"podSelector": LABELS, "namespaceSelector": LABELS}], "ports": [{"port": "http"}]}],
        "egress": [
            {
                "to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
                "ports": [{"protocol": "UDP", "port": 1, "endPort": 9}],
            }
        ],
    },
    CILIUM: {
        "endpointSelector": LABELS,
        "description": "text",
        "enableDefaultDeny": {"ingress": True, "egress": True},
        "ingress": [{"fromEndpoints": [LABELS], "toPorts": PORTS}, {"fromEntities": ["world"]}],
        "ingressDeny": [{"fromCIDR": ["10.0.0.0/8"], "icmps": [{"fields": [{"type": 8, "family": "IPv4"}]}]}],
        "egress": [{"toCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}], "toPorts": PORTS}],
        "egressDeny": [{"toEndpoints": [LABELS]}],
    },
}


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each part of a document, itself included."""
    yield at
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*at, key))


def replaced(value: Any, at: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    if not at:
        return change(value)
    if isinstance(value, dict):
        return {key: replaced(inner, at[1:], change) if key == at[0] else inner for key, inner in value.items()}
    return [replaced(inner, at[1:], change) if key == at[0] else inner for key, inner in enumerate(value)]


def part(value: Any, at: tuple[Any, ...]) -> Any:
    return part(value[at[0]], at[1:]) if at else value


OBJECTS = [
    pytest.param(ref, at, id=f"{ref.kind}-{'.'.join(map(str, at))}")
    for ref, spec in WHOLE.items()
    for at in places(spec)
    if isinstance(part(spec, at), dict) and at[-1:] != ("matchLabels",)
]


@pytest.mark.parametrize(("ref", "at"), OBJECTS)
def test_a_field_that_is_not_known_is_named_wherever_it_stands(ref: PolicyRef, at: tuple[Any, ...]) -> None:
    assert problem(ref, WHOLE[ref]) == ""
    policy = parse_policy(ref, {"spec": replaced(WHOLE[ref], at, lambda found: {**found, "strange": []})}, SCOPE)
    assert "strange: not supported" in policy.problem
    assert all(rule.deny for section in policy.sections for rule in section.rules)
    is_selector = at[:1] in (("podSelector",), ("endpointSelector",))
    assert [section.closes for section in policy.sections] == ([] if is_selector else [frozenset(Direction)])


WORDS = (
    *("spec", "specs", "podSelector", "endpointSelector", "matchLabels", "matchExpressions", "ingress", "egress"),
    *("from", "fromEndpoints", "toPorts", "ports", "port", "policyTypes", "ipBlock", "cidr", "key", "values", "icmps"),
)
words = st.sampled_from(WORDS)
json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from([(ref, at) for ref, spec in WHOLE.items() for at in places(spec)]), json)
def test_whatever_stands_in_one_place_closes_what_was_closed(where: tuple[PolicyRef, Any], found: Any) -> None:
    ref, at = where
    policy = parse_policy(ref, {"spec": replaced(WHOLE[ref], at, lambda _: found)}, SCOPE)
    if policy.problem and len(at) > 1 and at[0] not in ("podSelector", "endpointSelector", "enableDefaultDeny"):
        assert [section.closes for section in policy.sections] == [frozenset(Direction)]


@given(st.sampled_from([CILIUM, KUBERNETES]), json)
def test_whatever_stands_there_is_a_policy_or_invalid(ref: PolicyRef, document: Any) -> None:
    parse_policy(ref, document, SCOPE)
    parse_policy(ref, {"spec": document}, SCOPE)
