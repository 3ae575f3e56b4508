"""Which nodes are probed, and what their answers mean; real probes are sent in tests/root and tests/chaos."""

from meshd.daemon.prober import NO_EVIDENCE, NODES_MAX, Prober, Target
from routing.tunnel import DEFAULT
from wire.records import Node, NodeAddress


def node(name: str, *, address: str = "172.18.2.11", tunnel: str = "vxlan:8473") -> Node:
    annotations = {"meshd.io/tunnel": tunnel} if tunnel else None
    return Node(name=name, cluster="c2", addresses=[NodeAddress("InternalIP", address)], annotations=annotations)


def prober(own: str = "n1") -> Prober:
    return Prober(node=own, is_urgent=lambda cluster: False)


def test_a_few_nodes_are_probed_and_other_ones_from_another_node() -> None:
    nodes = [node(f"n{n}") for n in range(40)]
    chosen = []
    for own in ("n1", "n2", "n3"):
        made = prober(own)
        made.aim("c2", nodes)
        chosen.append(frozenset(made.nodes("c2")))
    assert {len(names) for names in chosen} == {NODES_MAX}
    assert len(set(chosen)) == 3


def test_nodes_that_do_not_announce_our_tunnel_are_not_probed() -> None:
    made = prober()
    made.aim("c2", [node("cilium", tunnel=""), node("odd", tunnel="gre:1"), node("bad", tunnel="vxlan:x")])
    assert made.evidence("c2") == NO_EVIDENCE


def test_results_stay_with_a_node_that_stays_and_go_with_another_address() -> None:
    made = prober()
    made.aim("c2", [node("n1")])
    made.nodes("c2")["n1"].results.append(0.001)
    made.aim("c2", [node("n1"), node("n2")])
    assert made.evidence("c2").rtt_s == 0.001
    made.aim("c2", [node("n1", address="172.18.2.99")])
    assert made.evidence("c2").rtt_s is None
    made.forget("c2")
    assert made.evidence("c2") == NO_EVIDENCE


def test_three_lost_in_a_row_are_no_answer_and_one_that_answers_speaks_for_its_cluster() -> None:
    made = prober()
    made.aim("c2", [node("n1"), node("n2")])
    one, two = made.nodes("c2").values()
    assert made.evidence("c2").answers is None
    one.results += [0.002, None, None, None]
    two.results += [None, None, 0.004]
    assert (one.answers(), two.answers(), made.evidence("c2").answers) == (False, True, True)
    two.results += [None, None, None]
    evidence = made.evidence("c2")
    assert (evidence.answers, evidence.rtt_s, evidence.loss) == (False, 0.003, 0.8)


def test_what_is_not_answered_in_time_is_lost() -> None:
    target = Target("172.18.2.11", DEFAULT, 0.0, {1: 10.0, 2: 10.9})
    target.expire(11.5)
    assert (list(target.results), list(target.sent)) == ([None], [2])
    assert target.is_doubtful()
    target.results += [None, None]
    assert not target.is_doubtful()
