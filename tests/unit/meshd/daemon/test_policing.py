"""Policies and identities come from a store; what the kernel shall hold comes out, in force only when it is there."""

from typing import Any

from datapath.description import decode
from datapath.entries import Entry
from meshd.daemon.store import ClusterState
from policy.model import Mode
from tests.support.desk import FAR, FRIEND, NAME, POD, Desk, ready
from wire.codec import encode
from wire.keys import Kind
from wire.labels import CLUSTER_LABEL
from wire.records import IP, NamedPort, Node, NodeAddress


def test_what_first_puts_a_pods_entries_into_force_comes_right_behind_them() -> None:
    desk = ready()
    desk.round()
    assert {fact["peer"] for fact in desk.wanted("md_policy")} == {1, FRIEND}
    (subject,) = desk.wanted("md_subject")
    assert (subject["identity"], subject["closed"], subject["audit"]) == (POD, [0], False)
    assert desk.moved == [{POD}]
    assert desk.policing.policed == {POD}
    round = desk.delta.plan()
    assert round is not None
    assert [step.map for step in round.upserts] == ["md_policy", "md_subject", "md_outside"][: len(round.upserts)]


def test_entries_that_change_come_one_round_before_what_puts_them_into_force() -> None:
    desk = ready()
    desk.work()
    (before,) = desk.wanted("md_subject")
    desk.policy({})
    assert desk.round(), "there is more to do"
    assert {fact["peer"] for fact in desk.wanted("md_policy")} == {1}
    assert desk.wanted("md_subject") == [before]
    assert not desk.round()
    (subject,) = desk.wanted("md_subject")
    assert subject["revision"] != before["revision"]


def test_the_revision_changes_with_the_entries_and_comes_back_with_them() -> None:
    desk = ready()
    desk.settle()
    (before,) = desk.wanted("md_subject")
    desk.identity(FRIEND, "foe")
    desk.settle()
    (between,) = desk.wanted("md_subject")
    desk.identity(FRIEND, "friend")
    desk.settle()
    (after,) = desk.wanted("md_subject")
    assert before == after
    assert between["revision"] != before["revision"]


def test_nothing_is_computed_before_the_own_cluster_told_its_policies() -> None:
    desk = Desk()
    desk.identity(POD, "pod")
    desk.policing.set_here({POD})
    desk.store.listed("cluster1", Kind.IDENTITY, now=0.0)
    desk.settle()
    assert not desk.policing.policed
    desk.policy({})
    desk.store.listed("cluster1", Kind.POLICY, now=0.0)
    desk.settle()
    assert not desk.policing.policed, "nor its pods"
    desk.store.listed("cluster1", Kind.IP, now=0.0)
    desk.settle()
    assert desk.policing.policed == {POD}


def test_pods_wait_where_policy_is_enforced_until_the_labels_of_their_identity_are_known() -> None:
    desk = ready()
    desk.settle()
    unknown = POD + 10
    desk.policing.set_here({POD, unknown})
    desk.settle()
    assert desk.policing.withheld == {unknown}
    assert desk.moved[-1] == {unknown}
    assert {fact["identity"]: fact["shut"] for fact in desk.wanted("md_subject")} == {POD: [], unknown: [0, 1]}
    desk.identity(unknown, "pod")
    desk.settle()
    assert not desk.policing.withheld
    assert {fact["identity"]: fact["shut"] for fact in desk.wanted("md_subject")} == {POD: [], unknown: []}
    assert desk.policing.policed == {POD, unknown}
    desk.policing.set_here({POD, unknown, unknown + 1})
    desk.settle()
    desk.identity(unknown + 1, "free")
    desk.settle()
    assert {fact["identity"] for fact in desk.wanted("md_subject")} == {POD, unknown}
    audit = ready(mode=Mode.AUDIT)
    audit.policing.set_here({POD, unknown})
    audit.settle()
    assert not audit.policing.withheld


def test_labels_are_not_forgotten_while_pods_have_them() -> None:
    desk = ready()
    desk.settle()
    desk.say("cluster1", Kind.IDENTITY, str(POD), None)
    desk.settle()
    assert desk.policing.policed == {POD}
    assert desk.wanted("md_subject")
    desk.policing.set_here(set())
    desk.settle()
    assert not desk.wanted("md_subject")
    assert POD not in desk.policing.engine.peers.labels


def test_modes() -> None:
    audit = ready(mode=Mode.AUDIT)
    audit.settle()
    assert [fact["audit"] for fact in audit.wanted("md_subject")] == [True]
    off = ready(mode=Mode.ENFORCE, namespaces={"default": Mode.OFF})
    off.settle()
    assert not off.policing.policed
    one = ready(mode=Mode.OFF, namespaces={"default": Mode.ENFORCE})
    one.settle()
    assert [fact["audit"] for fact in one.wanted("md_subject")] == [False]


def test_a_policy_that_goes_takes_everything_along_at_once() -> None:
    desk = ready()
    desk.settle()
    desk.say("cluster1", Kind.POLICY, NAME, None)
    assert not desk.round()
    assert not desk.wanted("md_policy")
    assert not desk.wanted("md_subject")
    assert desk.moved[-1] == {POD}
    assert not desk.policing.policed


def test_nodes_and_prefixes_are_who_they_are() -> None:
    desk = ready()
    desk.policing.outside.set_host(frozenset({"172.18.1.11", "10.0.0.254"}))
    node = Node(name="n2", cluster="cluster2", cluster_id=2, addresses=[NodeAddress("InternalIP", "172.18.2.11")])
    desk.say("cluster2", Kind.NODE, "n2", encode(node))
    desk.policy({"fromCIDR": ["172.18.0.0/16", "172.18.2.11/32"]})
    desk.settle()
    known = {str(fact["prefix"]): fact["identity"] for fact in desk.wanted("md_outside")}
    assert known.pop("172.18.0.0/16") >= 1 << 24
    assert known == {"172.18.1.11/32": 1, "10.0.0.254/32": 1, "172.18.2.11/32": 6}
    desk.say("cluster2", Kind.NODE, "n2", None)
    desk.settle()
    known = {str(fact["prefix"]): fact["identity"] for fact in desk.wanted("md_outside")}
    assert known["172.18.2.11/32"] >= 1 << 24, "now it is what the policy names"


def test_names_of_ports_are_those_of_the_pods() -> None:
    desk = ready()
    desk.policy({"toPorts": [{"ports": [{"port": "web", "protocol": "TCP"}]}]})
    record = IP(ip="10.0.0.1", host_ip="172.18.1.11", id=POD, named_ports=[NamedPort("web", 8080, "TCP")])
    desk.say("cluster1", Kind.IP, "10.0.0.1", encode(record))
    desk.settle()
    assert {(f["peer"], f["port"], f["length"]) for f in desk.wanted("md_policy")} == {(1, 0, 0), (0, 8080, 24)}
    desk.say("cluster1", Kind.IP, "10.0.0.1", None)
    desk.settle()
    assert [fact["peer"] for fact in desk.wanted("md_policy")] == [1]


BOTH = (
    {"fromEndpoints": [{"matchLabels": {"app": "friend", CLUSTER_LABEL: "cluster2"}}]},
    {"fromCIDR": ["10.9.0.0/16"]},
)


def restarted() -> Desk:
    """What stood in the maps is found again; only the own cluster has been heard."""
    first = ready()
    first.policy(*BOTH)
    first.settle()
    again = Desk()
    again.policing.restore(first.delta.desired["md_outside"], first.delta.desired["md_subject"])
    for name, entries in first.delta.desired.items():
        again.delta.restore(name, entries)
    again.identity(POD, "pod")
    again.identity(FRIEND, "friend")
    again.policy(*BOTH)
    again.policing.set_here({POD})
    again.sync("cluster1")
    while again.round():
        assert again.delta.plan() is None, "in no round"
    return again


def test_after_a_restart_pods_are_judged_on_until_their_cluster_has_told_its_policies() -> None:
    first = ready()
    first.settle()
    again = Desk()
    again.policing.restore(first.delta.desired["md_outside"], first.delta.desired["md_subject"])
    again.delta.restore("md_subject", first.delta.desired["md_subject"])
    assert again.moved == [{POD}]
    again.policing.set_here({POD, FRIEND})
    again.identity(POD, "pod")
    again.identity(FRIEND, "friend")
    again.store.listed("cluster1", Kind.IDENTITY, now=0.0)
    again.settle()
    assert again.policing.policed == {POD}, "its addresses may be heard before its policies"
    again.policy({"fromEndpoints": [{"matchLabels": {"app": "friend"}}]})
    for kind in (Kind.POLICY, Kind.IP):
        again.store.listed("cluster1", kind, now=0.0)
    again.policing.take(again.store.take(1, only="cluster2"))
    again.policing.refresh()
    assert again.policing.policed == {POD}, "they were told, but not taken yet"
    again.settle()
    assert again.policing.policed == {POD}
    assert again.moved == [{POD}], "not for a moment anything else"


def removed(desk: Desk) -> set[object]:
    round = desk.delta.plan()
    steps = [step for step in (round.deletes if round else ()) if step.map == "md_policy"]
    return {decode(Entry("md_policy", key, bytes(4)))["peer"] for step in steps for key in step.items}


def test_a_restart_writes_nothing_whoever_is_heard_first() -> None:
    desk = restarted()
    assert desk.delta.plan() is None, "the other cluster has not been heard"
    desk.identity(FAR, "friend")
    desk.sync("cluster2")
    desk.settle()
    assert desk.delta.plan() is None
    assert not desk.delta.unclaimed()


def test_what_a_silent_cluster_was_allowed_stays_until_it_speaks() -> None:
    desk = restarted()
    assert FAR not in removed(desk)
    desk.sync("cluster2")
    desk.settle()
    assert removed(desk) == {FAR}


def test_a_policy_that_changes_while_a_cluster_is_silent_is_in_force() -> None:
    desk = restarted()
    desk.policy(BOTH[0])
    desk.settle()
    round = desk.delta.plan()
    assert round is not None
    assert "md_subject" in {step.map for step in round.upserts}, "tracked connections are judged again"


class Walked(dict[str, ClusterState]):
    """Counts how often somebody looks at all clusters."""

    walks = 0

    def values(self) -> Any:
        self.walks += 1
        return super().values()


def test_once_everybody_was_heard_a_change_costs_the_same_however_many_clusters_there_are() -> None:
    desk = ready()
    desk.sync("cluster2")
    desk.work()
    clusters = desk.store.clusters = Walked(desk.store.clusters)
    desk.identity(FRIEND, "foe")
    desk.work()
    assert clusters.walks == 0
