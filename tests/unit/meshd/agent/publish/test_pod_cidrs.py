from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.agent.objects import ObjectKind, Ref
from meshd.agent.publish.pod_cidrs import PodCidrs
from tests.support import kubernetes
from tests.unit.meshd.agent.publish.test_publisher import Desk


def overlaps(**nodes: list[str]) -> list[tuple[str, str]]:
    found = PodCidrs()
    for node, cidrs in nodes.items():
        found.set(node, [ip_network(cidr) for cidr in cidrs])
    return list(found.overlaps())


@pytest.mark.parametrize(
    ("nodes", "who"),
    [
        ({"a": ["10.0.0.0/24"], "b": ["10.0.1.0/24"]}, []),
        ({"a": ["10.0.0.0/24"], "b": ["10.0.0.0/24"]}, ["b"]),
        ({"a": ["10.0.0.0/24"], "b": ["10.0.0.128/25"], "c": ["10.0.1.0/24"]}, ["b"]),
        ({"a": ["10.0.0.128/25"], "b": ["10.0.0.0/8"]}, ["a"]),
        ({"a": ["10.0.0.0/24", "10.0.0.0/25"]}, []),
        ({"a": ["0.0.0.0/0"], "b": ["::/0"]}, []),
        ({"a": ["fd00::/48"], "b": ["fd00::/64"]}, ["b"]),
    ],
)
def test_nodes_that_lie_in_others_are_named(nodes: dict[str, list[str]], who: list[str]) -> None:
    assert [node for node, _ in overlaps(**nodes)] == who


def test_the_sentence_says_what_becomes_of_the_packets() -> None:
    same = overlaps(a=["10.0.0.0/24"], b=["10.0.0.0/24"])
    assert same == [
        ("b", "PodCIDR 10.0.0.0/24 overlaps 10.0.0.0/24 of node a: both claim its packets, give one another range")
    ]
    inside = overlaps(a=["10.0.0.0/8"], b=["10.0.0.0/24"])
    assert "the longer prefix gets the packets" in inside[0][1]


NETWORKS = st.builds(
    lambda number, length: ip_network((number << 24 | 10 << 16, length), strict=False),
    st.integers(0, 7),
    st.sampled_from([6, 7, 8, 16, 24]),
)


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(NETWORKS, max_size=3)))
def test_it_is_what_comparing_each_with_each_finds(nodes: dict[str, list[Any]]) -> None:
    found = PodCidrs()
    for node, cidrs in nodes.items():
        found.set(node, cidrs)
    pairs = [
        (cidr, another)
        for one in nodes
        for other in nodes
        if one < other
        for cidr in nodes[one]
        for another in nodes[other]
        if cidr.overlaps(another)
    ]
    assert len(list(found.overlaps())) == len(pairs)


def test_both_nodes_are_published_and_the_overlap_is_named_until_it_is_gone() -> None:
    desk = Desk()
    desk.apply(kubernetes.node("a", pod_cidrs=["10.0.0.0/24"]), kubernetes.node("b", pod_cidrs=["10.0.0.0/24"]))
    assert [ref for ref, _ in desk.publisher.overlapping_cidrs()] == [Ref(ObjectKind.NODE, "", "b")]
    desk.apply(kubernetes.node("b", pod_cidrs=["10.0.1.0/24"]))
    assert desk.publisher.overlapping_cidrs() == []
    desk.apply(kubernetes.node("b", pod_cidrs=["10.0.0.0/25"]))
    desk.apply(deletes=(Ref(ObjectKind.NODE, "", "a"),))
    assert desk.publisher.overlapping_cidrs() == []
