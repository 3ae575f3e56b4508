"""The whole computation, from records to desired entries: any history gives what a full recompute gives."""

import json
from itertools import permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapath.entries import Entry
from meshd.daemon.kernel import describe_entry
from meshd.daemon.mesh import PODS
from meshd.daemon.restoration import restore
from meshd.daemon.watch import Changes
from tests.support import records
from tests.support.world import IDS, World, saying
from wire.keys import LOCAL_KINDS, SHARED_KINDS, Kind, prefix

OWN = "cluster1"

STEP = st.tuples(
    st.sampled_from(["say", "say", "say", "unsay", "leave", "refresh"]),
    st.sampled_from(sorted(IDS)),
    st.integers(0, 3),
    st.integers(1, 3),
    st.integers(0, 3),
)


@given(st.lists(STEP, max_size=40))
@settings(max_examples=150)
def test_any_history_ends_as_a_full_recompute(steps: list[tuple[str, str, int, int, int]]) -> None:
    world = World()
    for action, cluster, what, which, how in steps:
        cluster = "cluster1" if what == 3 else cluster
        kind, built = saying(cluster, what, which, how)
        if action == "say":
            world.say(cluster, kind, built)
        elif action == "unsay":
            world.unsay(cluster, kind, next(iter(built)).removeprefix(prefix(kind, cluster)))
        elif action == "leave" and cluster != "cluster1":
            world.leave(cluster)
            world.join(cluster, IDS[cluster])
        else:
            world.refresh()
    world.refresh()
    assert world.picture() == world.recomputed().picture()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 1 << 33)
    | st.sampled_from(["", "10.0.0.1", "fe80::1%eth0", "::ffff:1.2.3.4", "0.0.0.0", "/AAAAA==", "TCP", "SCTP", "a/b"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["IP", "Port", "http"]), inner),
    max_leaves=4,
)


@given(st.integers(0, 3), st.integers(2, 3), st.integers(0, 3), st.data())
@settings(max_examples=300)
def test_no_value_takes_more_than_itself_down(what: int, which: int, how: int, data: st.DataObject) -> None:
    cluster = "cluster1" if what == 3 else "cluster2"
    kind, built = saying(cluster, what, which, how)
    ((key, text),) = built.items()
    value = json.loads(text)
    for name in data.draw(st.lists(st.sampled_from(sorted(value)), min_size=1, max_size=2)):
        value[name] = data.draw(JSON)
    world = told()
    before = world.picture()
    world.say(cluster, kind, {key: json.dumps(value)})
    world.refresh()
    world.unsay(cluster, kind, key.removeprefix(prefix(kind, cluster)))
    world.refresh()
    assert world.picture() == before


@given(st.sampled_from(SHARED_KINDS), st.text(max_size=12), st.binary(max_size=40))
def test_any_bytes_under_any_name_are_survived(kind: Kind, name: str, value: bytes) -> None:
    world = told()
    before = world.picture()
    world.store.apply("cluster2", kind, Changes({name: value}), now=0.0)
    world.refresh()
    world.store.apply("cluster2", kind, Changes({}, {name}), now=0.0)
    world.refresh()
    assert world.picture() == before


def told() -> World:
    """Two clusters with a node, a pod and a backend each; cluster3 says nothing."""
    world = World()
    world.say("cluster1", Kind.NODE, records.node("cluster1", 1, "n1", "172.18.1.11", "10.0.0.0/24"))
    world.say("cluster1", Kind.IP, records.ip("cluster1", "10.0.0.1", "172.18.1.11", 65537))
    world.say("cluster1", Kind.LOCAL_SERVICE, records.local_service("cluster1", "ns/a", "30.1.1.1", "10.0.0.1"))
    world.say("cluster2", Kind.NODE, records.node("cluster2", 2, "n1", "172.18.2.11", "20.0.0.0/24"))
    world.say("cluster2", Kind.IP, records.ip("cluster2", "20.0.0.1", "172.18.2.11", 131073))
    world.say("cluster2", Kind.SERVICE, records.service("cluster2", 2, "ns/a", "20.0.0.1"))
    world.refresh()
    return world


def lines(world: World, map: str) -> list[str]:
    return sorted(describe_entry(map, key, value) for key, value in world.maps.desired[map].items())


def test_remote_pods_have_a_tunnel_and_our_own_have_none() -> None:
    assert lines(told(), "md_ipcache") == [
        "10.0.0.1 identity=65537 tunnel=none remote=False",
        "20.0.0.1 identity=131073 tunnel=172.18.2.11 remote=True",
    ]


def test_only_remote_pod_cidrs_are_entries() -> None:
    assert lines(told(), "md_cidrs") == ["20.0.0.0/24 identity=2 tunnel=172.18.2.11 remote=True"]


def test_nobody_takes_our_own_pod_cidr_or_address() -> None:
    world = told()
    world.say("cluster2", Kind.NODE, records.node("cluster2", 2, "thief", "172.18.2.12", "10.0.0.0/24"))
    world.say("cluster2", Kind.IP, records.ip("cluster2", "10.0.0.1", "172.18.2.12", 131074))
    world.refresh()
    assert world.picture() == told().picture()
    held = [(kind, name, held.reason) for _, kind, name, held in world.mesh.suspicion.quarantine.items()]
    assert sorted(held) == [(Kind.IP, "10.0.0.1", "own-address"), (Kind.NODE, "thief", "own-address")]
    world.unsay("cluster1", Kind.NODE, "n1")
    world.unsay("cluster1", Kind.IP, "10.0.0.1")
    world.refresh()
    assert not list(world.mesh.suspicion.quarantine.items())
    assert "10.0.0.1 identity=131074 tunnel=172.18.2.12 remote=True" in lines(world, "md_ipcache")


def test_another_clusters_host_is_a_remote_node_and_reached_without_tunnel() -> None:
    world = told()
    world.say("cluster2", Kind.IP, records.ip("cluster2", "172.18.2.11", "172.18.2.11", 1))
    world.refresh()
    assert "172.18.2.11 identity=6 tunnel=none remote=True" in lines(world, "md_ipcache")


def test_a_pod_that_nobody_can_judge_yet_is_not_delivered_to_and_a_known_one_stays_as_it_was() -> None:
    world, key = World(), bytes([10, 0, 0, 1])
    world.say("cluster1", Kind.IP, records.ip("cluster1", "10.0.0.1", "172.18.1.11", 65537))
    world.say("cluster1", Kind.NODE, records.node("cluster1", 1, "n1", "172.18.1.11", "10.0.0.0/24"))
    world.refresh()
    world.mesh.police(set(), {65537}, {65537})
    assert key not in world.pods.desired[PODS]
    world.mesh.police({65537}, set(), {65537})
    before = world.pods.desired[PODS][key]
    world.pods.record(PODS, {key: before})
    world.mesh.police({65537}, {65538}, {65538})
    world.say("cluster1", Kind.IP, records.ip("cluster1", "10.0.0.1", "172.18.1.11", 65538))
    world.refresh()
    assert world.pods.desired[PODS][key] == before, "other labels, of which nothing is known"
    world.mesh.police({65537}, set(), {65538})
    assert world.pods.desired[PODS][key] != before


def test_the_pods_of_this_node_are_those_at_its_address() -> None:
    world = told()
    assert list(world.pods.desired[PODS]) == [bytes([10, 0, 0, 1])]
    world.say("cluster1", Kind.NODE, records.node("cluster1", 1, "n1", "172.18.1.99", "10.0.0.0/24"))
    world.refresh()
    assert not world.pods.desired[PODS]


def restarted(before: World) -> World:
    """A new process whose maps hold what the old one wished."""
    world = World(heard=False)
    held = {name: dict(entries) for name, entries in before.maps.desired.items()}
    for name, entries in held.items():
        world.maps.restore(name, entries)
    world.mesh.restore(restore(held, max_clusters=255))
    world.content = before.content
    return world


def hear(world: World, *clusters: str) -> None:
    """These clusters say what they said before, completely."""
    for (cluster, kind, name), value in world.content.items():
        if cluster in clusters:
            world.store.apply(cluster, kind, Changes({name: value}), now=0.0)
    for cluster in clusters:
        world.sync(cluster)
    world.refresh()


def test_a_restart_with_nothing_changed_has_nothing_to_do_whoever_is_heard_first() -> None:
    for order in permutations(IDS):
        world = restarted(told())
        for cluster in order:
            hear(world, cluster)
            assert world.maps.plan() is None
        assert world.maps.unclaimed() == 0


@pytest.mark.parametrize("last", [(cluster, kind) for cluster in IDS for kind in SHARED_KINDS])
def test_whichever_list_is_complete_last_all_was_heard_then(last: tuple[str, Kind]) -> None:
    """Also one that decides nothing about what was found, such as that of the identities."""
    lists = [(cluster, kind) for cluster in IDS for kind in (*SHARED_KINDS, *(LOCAL_KINDS if cluster == OWN else ()))]
    all_but_last = [each for each in lists if each != last]
    world = restarted(told())
    for cluster, kind in [*all_but_last, last]:
        assert not world.mesh.restored
        for (said_by, of, name), value in world.content.items():
            if (said_by, of) == (cluster, kind):
                world.store.apply(cluster, kind, Changes({name: value}), now=0.0)
        world.store.listed(cluster, kind, now=0.0)
        world.refresh()
    assert world.mesh.restored


def test_a_pod_found_at_the_start_stays_until_our_node_was_heard() -> None:
    world = restarted(told())
    key = bytes([10, 0, 0, 1])
    world.pods.restore(PODS, {key: b""})
    world.say("cluster1", Kind.IP, records.ip("cluster1", "10.0.0.1", "172.18.1.11", 65537))
    world.refresh()
    assert world.pods.plan() is None
    hear(world, "cluster1")
    assert list(world.pods.desired[PODS]) == [key]


def test_what_others_claim_waits_until_our_own_cluster_was_heard() -> None:
    world = restarted(World())
    world.say("cluster2", Kind.IP, records.ip("cluster2", "10.0.0.1", "172.18.2.12", 131074))
    world.refresh()
    assert world.count() == 0
    world.say("cluster1", Kind.IP, records.ip("cluster1", "10.0.0.1", "172.18.1.11", 65537))
    world.sync("cluster1")
    world.refresh()
    assert lines(world, "md_ipcache") == ["10.0.0.1 identity=65537 tunnel=none remote=False"]


def test_what_a_cluster_owned_goes_only_after_it_was_heard() -> None:
    before = told()
    before.say("cluster2", Kind.IP, records.ip("cluster2", "20.0.0.9", "172.18.2.11", 131073))
    before.refresh()
    world = restarted(before)
    world.content = told().content
    hear(world, "cluster1", "cluster3")
    assert world.maps.plan() is None
    hear(world, "cluster2")
    plan = world.maps.plan()
    assert plan is not None
    gone = [describe_entry(step.map, *item) for step in plan.deletes for item in step.items.items()]
    assert gone == ["20.0.0.9 identity=131073 tunnel=172.18.2.11 remote=True"]


def test_a_dead_clusters_backends_stay_over_a_restart_and_go_when_it_leaves() -> None:
    world = restarted(told())
    hear(world, "cluster1", "cluster3")
    world.say("cluster1", Kind.LOCAL_SERVICE, records.local_service("cluster1", "ns/a", "30.1.1.1", "10.0.0.2"))
    world.refresh()
    assert backends(world) == {"10.0.0.2", "20.0.0.1"}
    world.leave("cluster2")
    world.refresh()
    assert backends(world) == {"10.0.0.2"}


def backends(world: World) -> set[str]:
    (found,) = restore(world.maps.desired, max_clusters=255).services.frontends.values()
    return {str(backend[0]) for backend in found}


def test_only_one_service_has_a_frontend_that_two_claim() -> None:
    for first, second in product(["ns/a", "ns/b"], repeat=2):
        world = World()
        for name in (first, second):
            world.say("cluster1", Kind.LOCAL_SERVICE, records.local_service("cluster1", name, "30.1.1.1", "10.0.0.1"))
            world.refresh()
        assert world.count() == 3


def test_this_nodes_own_entry_is_wished_as_it_is() -> None:
    world = World()
    world.mesh.want(Entry("md_cfg", bytes(4), bytes(8)))
    assert world.maps.desired["md_cfg"] == {bytes(4): bytes(8)}
