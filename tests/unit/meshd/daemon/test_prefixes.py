"""Who is believed about overlapping PodCIDRs: any history gives what looking at all claims at once gives."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.daemon.kernel import describe_entry
from meshd.daemon.prefixes import Prefixes
from meshd.daemon.wishes import Wishes
from wire.records import CIDR, IPNetwork, Node, NodeAddress

RANKS = {"ours": (0,), "two": (1, 2), "three": (1, 3)}
Claims = dict[tuple[str, str], IPNetwork]


class World:
    """What nodes say, and which entries stand for it."""

    def __init__(self) -> None:
        self.claims: Claims = {}
        self.entries: dict[bytes, bytes] = {}
        self.prefixes = Prefixes("ours", lambda cluster: RANKS[cluster], lambda record: None)

    def say(self, cluster: str, node: str, prefix: str | None) -> "World":
        if prefix is None:
            self.claims.pop((cluster, node), None)
        else:
            self.claims[cluster, node] = ip_network(prefix)
        self._take(self.prefixes.update_nodes(cluster, [node], lambda name: self._node(cluster, name)))
        return self

    def _node(self, cluster: str, name: str) -> Node | None:
        prefix = self.claims.get((cluster, name))
        address = [NodeAddress("InternalIP", f"172.18.{RANKS[cluster][-1]}.{len(name)}")]
        return Node(name=name, cluster=cluster, addresses=address, ipv4_cidr=CIDR.of(prefix)) if prefix else None

    def _take(self, wishes: Wishes) -> None:
        for (_, key), value in wishes.items():
            if value is None:
                self.entries.pop(key, None)
            else:
                self.entries[key] = value

    def stands(self) -> list[str]:
        lines = [describe_entry("md_cidrs", key, value).split() for key, value in self.entries.items()]
        return sorted(f"{words[0]} {words[2].removeprefix('tunnel=')}" for words in lines)

    def expected(self) -> list[str]:
        """By looking at all claims."""
        lines = []
        for prefix in set(self.claims.values()):
            cluster, node = self._winner(prefix)
            others = [(other, self._winner(other)[0]) for other in set(self.claims.values()) if other.overlaps(prefix)]
            if cluster != "ours" and not any(RANKS[other] < RANKS[cluster] for _, other in others):
                lines.append(f"{prefix} 172.18.{RANKS[cluster][-1]}.{len(node)}")
        return sorted(lines)

    def _winner(self, prefix: IPNetwork) -> tuple[str, str]:
        return min((c for c, p in self.claims.items() if p == prefix), key=lambda c: (RANKS[c[0]], c))


STEP = st.tuples(
    st.sampled_from(sorted(RANKS)),
    st.sampled_from(["a", "bb", "ccc"]),
    st.one_of(st.none(), st.builds(lambda n, length: (n << 28, length), st.integers(0, 15), st.integers(1, 5))),
)


@given(st.lists(STEP, max_size=30))
def test_any_history_ends_as_a_look_at_all_claims(steps: list[tuple[str, str, tuple[int, int] | None]]) -> None:
    world = World()
    for cluster, node, prefix in steps:
        world.say(cluster, node, None if prefix is None else str(ip_network(prefix, strict=False)))
        assert world.stands() == world.expected()
    for cluster, node in list(world.claims):
        world.say(cluster, node, None)
    assert (world.entries, world.prefixes.blocked, list(world.prefixes.contested())) == ({}, {}, [])


@pytest.mark.parametrize("prefix", ["10.0.0.0/24", "10.0.0.128/25", "10.0.0.0/8", "0.0.0.0/0"])
def test_nothing_that_overlaps_ours_is_used(prefix: str) -> None:
    world = World().say("ours", "a", "10.0.0.0/24").say("two", "a", prefix)
    assert world.stands() == []
    assert world.prefixes.believed(ip_network(prefix)) in ("", "ours/a")


def test_who_is_believed_is_told_to_those_who_make_routes() -> None:
    world = World().say("three", "a", "20.0.1.0/24")
    assert world.prefixes.moved == {ip_network("20.0.1.0/24")}
    world.prefixes.moved.clear()
    world.say("two", "a", "20.0.0.0/16")
    assert world.prefixes.moved == {ip_network("20.0.1.0/24"), ip_network("20.0.0.0/16")}
    assert [world.prefixes.believed(ip_network(text)) for text in ("20.0.1.0/24", "20.0.0.0/16")] == ["", "two/a"]


def test_one_clusters_prefixes_may_lie_in_each_other() -> None:
    world = World().say("two", "a", "20.0.0.0/16").say("two", "bb", "20.0.1.0/24")
    assert len(world.stands()) == 2
    assert world.prefixes.blocked == {}
