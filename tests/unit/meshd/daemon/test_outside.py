"""Who an address is that is no pod's."""

from ipaddress import ip_network

from datapath.description import decode
from datapath.entries import Entry
from meshd.daemon.kernel import PolicyShape
from meshd.daemon.outside import Outside
from meshd.reconcile.delta import Delta
from wire.records import Node, NodeAddress

PREFIX, NUMBER = ip_network("172.18.2.11/32"), 1 << 24


def node(*addresses: str) -> Node:
    found = [NodeAddress("InternalIP", address) for address in addresses]
    return Node(name="n", cluster="c", cluster_id=2, addresses=found)


def known(delta: Delta) -> dict[str, object]:
    facts = [decode(Entry("md_outside", key, value)) for key, value in delta.desired["md_outside"].items()]
    return {str(fact["prefix"]): fact["identity"] for fact in facts}


def test_an_address_that_two_nodes_claim_is_a_nodes_until_both_are_gone() -> None:
    delta = Delta(PolicyShape())
    outside = Outside(delta, lambda: {})
    outside.put_node("cluster2", "a", node("172.18.2.11", "no address"))
    outside.put_node("cluster3", "b", node("172.18.2.11", "172.18.3.11"))
    assert known(delta) == {"172.18.2.11/32": 6, "172.18.3.11/32": 6}
    outside.put_node("cluster2", "a", None)
    assert known(delta) == {"172.18.2.11/32": 6, "172.18.3.11/32": 6}
    outside.put_node("cluster3", "b", node("172.18.3.11"))
    assert known(delta) == {"172.18.3.11/32": 6}


def test_a_prefix_of_a_policy_is_a_nodes_while_there_is_that_node() -> None:
    delta, numbers = Delta(PolicyShape()), {PREFIX: NUMBER}
    outside = Outside(delta, lambda: numbers)
    outside.want(PREFIX, NUMBER)
    assert known(delta) == {str(PREFIX): NUMBER}
    outside.put_node("cluster2", "a", node("172.18.2.11"))
    assert known(delta) == {str(PREFIX): 6}
    outside.set_host(frozenset({"172.18.2.11"}))
    assert known(delta) == {str(PREFIX): 1}, "it is this node after all"
    outside.set_host(frozenset())
    outside.put_node("cluster2", "a", None)
    assert known(delta) == {str(PREFIX): NUMBER}
    numbers.clear()
    outside.want(PREFIX, None)
    assert known(delta) == {}
