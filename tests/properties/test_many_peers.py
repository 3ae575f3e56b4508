"""Several clusters, each with an etcd of its own, in any history: writes, deletes, cuts, lists that are overtaken by
compactions, another etcd behind the name, another ID, leaving, and coming back at once, while it is drained, later or
not at all; being lost and found, and allowed less or more; and the daemon is restarted on the maps as they are, and
hears everybody again, bit by bit. Rounds take a few records each, so that all of it happens between two of them; every
tenth write to the maps fails. In the end the node has what a full recompute from the models gives, in its maps too.
"""

from ipaddress import ip_address, ip_network
from typing import cast
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from identity.numbering import identity_range
from meshd.daemon import mesh
from meshd.daemon.allowance import Allowance
from meshd.daemon.kernel import MAPS, MapShape, MapTarget
from meshd.daemon.restoration import restore
from meshd.daemon.watch import Changes
from meshd.reconcile.loop import Reconciler
from tests.support import records
from tests.support.kernel import FakeMaps, no_faults, random_faults
from tests.support.peer import Peer
from tests.support.rounds import Rounds
from tests.support.world import IDS, World, saying
from wire.codec import Scope
from wire.keys import LOCAL_KINDS, SHARED_KINDS, Kind, prefix
from wire.records import Service

REMOTES = ("cluster2", "cluster3")
OFTEN = ["put"] * 5 + ["hear"] * 4 + ["delete"] * 3 + ["step", "connect", "round"] * 2
SELDOM = ["cut", "compact", "wipe", "renumber", "leave", "part", "back", "lose", "find", "allow", "own", "refresh"]
SELDOM += ["restart", "heed", "heed"]
OWN_KINDS = (*SHARED_KINDS, *LOCAL_KINDS)
SLICE = 4
ALLOWED = [
    Allowance(quotas={}),
    Allowance(cidrs=(ip_network("20.0.0.2/31"),), quotas={}),
    Allowance(namespaces=frozenset(["other"]), quotas={}),
]
STEP = st.tuples(
    st.sampled_from([*OFTEN, *SELDOM]),
    st.sampled_from(REMOTES),
    st.integers(0, 2),
    st.integers(1, 3),
    st.integers(0, 3),
)


class Node:
    """A node of cluster1, its peers, and its maps."""

    def __init__(self, seed: int) -> None:
        self.world = World(ids=dict(IDS))
        self.peers = {name: Peer(name, IDS[name], self.world.store) for name in REMOTES}
        self.maps = FakeMaps()
        self.maps.fails = random_faults(seed)
        self.gone: set[str] = set()
        """Clusters without a file."""
        self._work_on(self.world)

    def _work_on(self, world: World) -> None:
        self.world = world
        reconciler = Reconciler("maps", MapTarget(self.maps), MapShape())
        reconciler.delta = world.maps
        self.rounds = Rounds(reconciler)

    def act(self, action: str, cluster: str, what: int, which: int, how: int) -> None:
        peer = self.peers[cluster]
        _, built = saying(cluster, what, which, how, peer.number)
        ((key, value),) = built.items()
        if cluster in self.gone and action in {"step", "hear", "connect", "leave", "part", "lose", "find", "allow"}:
            return
        if action in {"step", "hear", "connect"} and self.world.store.clusters[cluster].scope is None:
            self.join(peer)
        match action:
            case "put":
                peer.put(key, value)
            case "delete":
                peer.delete(key)
            case "step":
                peer.step(list(SHARED_KINDS)[how], batch=which)
            case "hear":
                peer.catch_up()
            case "connect":
                peer.connect()
            case "cut":
                peer.cut()
            case "compact":
                peer.compact()
            case "wipe":
                peer.wipe()
                peer.put(key, value)
            case "renumber":
                self.renumber(peer, what, which, how)
            case "leave":
                self.part(peer)
                self.come_back(peer)
            case "part":
                self.part(peer)
            case "back":
                self.come_back(peer)
            case "lose":
                self.world.mesh.withdraw(cluster)
            case "find":
                self.world.mesh.welcome(cluster)
            case "allow":
                self.world.allowed[cluster] = ALLOWED[how % len(ALLOWED)]
                self.world.mesh.suspicion.reconsider(cluster)
            case "round":
                self.world.mesh.refresh()
                self.rounds.work()
            case "own":
                self.own(*saying("cluster1", 3 if how % 2 else what, which, how))
            case "restart":
                self.restart()
            case "heed":
                self.heed(OWN_KINDS[(3 * how + which) % len(OWN_KINDS)])
            case _:
                self.refresh()

    def own(self, kind: Kind, built: records.Records) -> None:
        """Our own cluster says something, which is heard if the daemon listens already."""
        if self.world.store.synced("cluster1", [kind]):
            self.world.say("cluster1", kind, built)
        else:
            named = {key.removeprefix(prefix(kind, "cluster1")): value.encode() for key, value in built.items()}
            self.world.content |= {("cluster1", kind, name): value for name, value in named.items()}

    def heed(self, kind: Kind) -> None:
        """The list of a kind of our own cluster is there, if it was not."""
        if self.world.store.synced("cluster1", [kind]):
            return
        said = {name: value for (_, of, name), value in self.world.content.items() if of is kind}
        self.world.store.apply("cluster1", kind, Changes(said), now=0.0)
        self.world.store.listed("cluster1", kind, now=0.0)

    def restart(self) -> None:
        """A new process on the same maps: it knows of whom it has a file, and has heard nobody."""
        world = World(content=self.world.content, heard=False, ids={"cluster1": 1}, allowed=self.world.allowed)
        held = {name: self.maps.dump(name) for name in MAPS}
        for name, entries in held.items():
            world.maps.restore(name, entries)
        world.mesh.restore(restore(held, max_clusters=255))
        for cluster, peer in self.peers.items():
            peer.store = world.store
            peer.forget()
            if cluster not in self.gone:
                world.store.expect(cluster)
        self._work_on(world)

    def hear(self, cluster: str) -> None:
        """All that it says."""
        if cluster == "cluster1":
            for kind in OWN_KINDS:
                self.heed(kind)
        elif cluster not in self.gone:
            self.act("hear", cluster, 0, 1, 0)

    def renumber(self, peer: Peer, what: int, which: int, how: int) -> None:
        """The cluster gets another ID and writes everything anew; the reader connects again and sees it."""
        peer.number = (peer.number + 10) % 20
        for old in list(peer.content):
            peer.delete(old.decode())
        _, built = saying(peer.cluster, what, which, how, peer.number)
        ((key, value),) = built.items()
        peer.put(key, value)
        if peer.cluster not in self.gone:
            self.join(peer)
        peer.forget()

    def join(self, peer: Peer) -> None:
        self.world.members.join(peer.cluster, peer.number)
        scope = Scope(peer.cluster, peer.number, identity_range(peer.number))
        self.world.store.accept(peer.cluster, scope)

    def part(self, peer: Peer) -> None:
        """Its file goes."""
        self.gone.add(peer.cluster)
        self.world.store.drain(peer.cluster)
        self.world.members.leave(peer.cluster)
        self.world.mesh.leave(peer.cluster)
        self.world.allowed.pop(peer.cluster, None)
        peer.forget()

    def come_back(self, peer: Peer) -> None:
        """And is there again."""
        if peer.cluster in self.gone:
            self.gone.discard(peer.cluster)
            self.join(peer)

    def refresh(self) -> None:
        self.world.refresh()
        self.rounds.work()

    def end(self) -> None:
        """All is heard, and nothing fails any more."""
        for cluster in ("cluster1", *REMOTES):
            self.hear(cluster)
        self.maps.fails = no_faults
        for _ in range(20):
            self.refresh()

    def is_contested(self) -> bool:
        """Two clusters claim an address of a pod or a node, or a prefix; or one offers another's pods as backends."""
        mesh, found = self.world.mesh, restore(self.maps.content, max_clusters=255)
        claims = [*mesh.addresses.conflicts(), *mesh.nodes.conflicts(), *mesh.prefixes.blocked]
        offers = [
            (ip_address(address), peer.number)
            for cluster, peer in self.peers.items()
            for service in self.world.store.records(cluster, Kind.SERVICE).values()
            for address in cast(Service, service).backends or ()
        ]
        foreign = [offer for offer in offers if found.owner(offer[0]) not in (0, offer[1])]
        return bool(claims or foreign) or "conflict" in self.world.refused().values()

    def model(self) -> World:
        """Another node that is told at once what the etcds hold."""
        ids = dict(IDS) | {name: peer.number for name, peer in self.peers.items()}
        full = World(ids={name: number for name, number in ids.items() if name not in self.gone})
        full.allowed = dict(self.world.allowed)
        for cluster in self.world.mesh.withdrawn:
            full.mesh.withdraw(cluster)
        for (cluster, kind, name), value in self.world.content.items():
            full.say(cluster, kind, {prefix(kind, cluster) + name: value.decode()})
        for cluster, peer in self.peers.items():
            for key, kv in peer.content.items() if cluster not in self.gone else ():
                kind = next(kind for kind in SHARED_KINDS if key.decode().startswith(prefix(kind, cluster)))
                full.say(cluster, kind, {key.decode(): kv.value.decode()})
        full.refresh()
        return full


@given(st.lists(STEP, max_size=60), st.integers(0, 999))
@settings(max_examples=500)
def test_any_history_of_several_peers_ends_as_a_full_recompute(
    steps: list[tuple[str, str, int, int, int]], seed: int
) -> None:
    node = Node(seed)
    with patch.object(mesh, "SLICE", SLICE):
        for step in steps:
            node.act(*step)
        node.end()
    model = node.model()
    assert node.world.picture() == model.picture()
    assert node.world.refused() == model.refused()
    assert not node.rounds.failing
    wanted = {name: entries for name, entries in node.world.maps.desired.items() if entries}
    assert {name: entries for name, entries in node.maps.content.items() if entries} == wanted


def test_a_history_with_everything_in_it() -> None:
    """So that each kind of event is known to be walked through, whatever is drawn above."""
    node = Node(1)
    node.act("own", "cluster2", 3, 1, 3)
    for cluster in REMOTES:
        for what, action in enumerate(["put", "put", "put"]):
            node.act(action, cluster, what, 1, 2)
        node.act("connect", cluster, 0, 1, 0)
    node.act("step", "cluster2", 0, 1, list(SHARED_KINDS).index(Kind.IP))
    for action in ("compact", "put", "step", "refresh", "cut", "delete", "connect", "wipe", "renumber", "leave"):
        node.act(action, "cluster2", 1, 2, 3)
    for action in ("hear", "lose", "round", "part", "round", "put", "back", "round", "allow", "find"):
        node.act(action, "cluster2", 1, 3, 3)
    for action in ("restart", "refresh", "own", "heed", "step", "round", "part", "refresh", "heed", "back", "restart"):
        node.act(action, "cluster2", 1, 2, 3)
    node.end()
    assert node.world.picture() == node.model().picture()
    assert node.maps.content["md_ipcache"]


SAID = [
    *(("own", "cluster2", 3, which, 3) for which in (1, 2)),
    *(("put", cluster, 1, which, 1) for which, cluster in enumerate(REMOTES, 1)),
    ("put", "cluster2", 2, 1, 2),
    ("put", "cluster3", 0, 1, 1),
]
"""Something in each map, so that there is something to lose."""
HEARING = st.lists(st.sampled_from(["cluster1", *REMOTES]) | st.tuples(st.sampled_from(REMOTES), st.integers(0, 3)))


@given(st.lists(STEP, max_size=30), st.integers(0, 999), HEARING)
@settings(max_examples=300)
def test_a_restart_after_any_history_writes_nothing_whoever_is_heard_first(
    steps: list[tuple[str, str, int, int, int]], seed: int, order: list[str | tuple[str, int]]
) -> None:
    """Where two claim the same it shows only when all were heard which of them is to be believed."""
    node = Node(seed)
    for step in [*SAID, *steps]:
        node.act(*step)
    for cluster in REMOTES:
        node.world.mesh.welcome(cluster)
    node.end()
    writes, is_contested = list(node.maps.writes), node.is_contested()
    node.restart()
    for who in [*order, "cluster1", *REMOTES]:
        if isinstance(who, str):
            node.hear(who)
        else:
            node.act("connect", who[0], 0, 1, 0)
            node.act("step", who[0], 0, 3, who[1])
        if not is_contested:
            node.refresh()
    node.refresh()
    assert node.maps.writes[len(writes) :] == []
    assert node.world.mesh.restored
