"""What makes a policy invalid, and that nothing makes parsing fail."""

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


@given(st.sampled_from([CILIUM, KUBERNETES]), json)
def test_whatever_stands_there_is_a_policy_or_invalid(ref: PolicyRef, document: Any) -> None:
    parse_policy(ref, document, SCOPE)
    parse_policy(ref, {"spec": document}, SCOPE)
