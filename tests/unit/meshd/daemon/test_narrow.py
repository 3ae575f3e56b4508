"""What the ways to nodes carry: of the nodes that are probed, of those beside them, and after a restart."""

from ipaddress import ip_address

from datapath.entries import Direct, Entry, node_entry
from meshd.daemon.narrow import PATIENCE_S, Narrow
from meshd.daemon.pathmtu import PathMtu
from meshd.daemon.prober import Target
from routing.tunnel import DEFAULT
from wire.records import Node, NodeAddress


def node(name: str, cluster: str = "c2", address: str = "172.18.2.11") -> Node:
    return Node(name=name, cluster=cluster, addresses=[NodeAddress("InternalIP", address)])


def probed(**found: int | None) -> dict[str, Target]:
    return {name: Target("172.18.2.1", DEFAULT, 0.0, path=PathMtu(1500, found=size)) for name, size in found.items()}


def look(narrow: Narrow, now: float = 0.0, **found: int | None) -> set[str]:
    return narrow.look(["c2"], lambda cluster: probed(**found), 1500, now)


def held(*entries: Entry) -> dict[bytes, bytes]:
    return {entry.key: entry.value for entry in entries}


def test_a_node_that_is_not_probed_is_as_the_narrowest_beside_it() -> None:
    narrow = Narrow(4, {})
    assert narrow.path_of(node("n1")) == 0
    assert look(narrow, n1=None) == set()
    assert look(narrow, n1=1500, n2=1500) == set(), "as it was thought"
    assert look(narrow, n1=1400, n2=1500) == {"c2"}
    assert look(narrow, n1=1400, n2=1500) == set()
    assert [narrow.path_of(node(name)) for name in ("n1", "n2", "n3")] == [1400, 0, 1400]
    assert narrow.path_of(node("n1", "c3")) == 0
    assert look(narrow, n1=None, n2=None) == set(), "what was found holds until more is known"
    assert look(narrow, n1=1500, n2=1500) == {"c2"}
    assert narrow.path_of(node("n3")) == 0
    narrow.forget("c2")


def test_what_held_before_a_restart_holds_until_more_is_known() -> None:
    two = ip_address("172.18.2.12")
    entries = held(
        node_entry(ip_address("172.18.2.11"), cluster_id=2, remote=True, tunnel_ifindex=9, tunnel_mtu=1350),
        node_entry(two, cluster_id=2, remote=True, direct4=Direct(2, two, 1380)),
        node_entry(ip_address("172.18.1.11"), cluster_id=1, remote=False, here=True),
    )
    narrow = Narrow(4, entries)
    assert [narrow.path_of(node("n", address=f"172.18.2.{last}")) for last in (11, 12, 13)] == [1400, 1380, 0]
    assert look(narrow, 0.0) == set()
    assert look(narrow, 1.0, n=1500) == {"c2"}
    assert narrow.path_of(node("n")) == 0


def test_of_who_never_answers_it_holds_for_a_while() -> None:
    entry = node_entry(ip_address("172.18.2.11"), cluster_id=2, remote=True, tunnel_ifindex=9, tunnel_mtu=1350)
    narrow = Narrow(4, held(entry))
    assert look(narrow, 5.0) == set()
    assert look(narrow, 5.0 + PATIENCE_S) == set()
    assert narrow.path_of(node("n")) == 1400
    assert look(narrow, 5.1 + PATIENCE_S) == {"c2"}
    assert narrow.path_of(node("n")) == 0


def test_what_a_router_said_of_a_node_holds_beside_what_was_found_as_long_as_the_kernel_remembers() -> None:
    narrow, one, two = Narrow(4, {}), ip_address("172.18.2.11"), ip_address("172.18.2.12")
    assert narrow.tell({one: 1400}) == {one}
    assert narrow.tell({one: 1400}) == set()
    assert [narrow.path_of(node("n", address=str(address))) for address in (one, two)] == [1400, 0]
    look(narrow, n=1380)
    assert narrow.path_of(node("n")) == 1380, "the least of both"
    look(narrow, n=1500)
    assert narrow.path_of(node("n")) == 1400, "the kernel sends nothing larger, although a probe has passed"
    assert narrow.tell({two: 1450}) == {one, two}
    assert [narrow.path_of(node("n", address=str(address))) for address in (one, two)] == [0, 1450]


def test_no_router_takes_away_what_ipv6_needs_where_the_underlay_may_cut() -> None:
    four, six = ip_address("172.18.2.11"), ip_address("fd00:18::1")
    assert Narrow(4, {}).tell({four: 1329}) == set()
    assert Narrow(4, {}).tell({four: 1330}) == {four}
    assert Narrow(6, {}).tell({six: 1280}) == {six}
