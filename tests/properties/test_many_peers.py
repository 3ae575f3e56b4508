"""Several clusters, each with an etcd of its own, in any history: writes, deletes, cuts, lists that are overtaken by
compactions, another etcd behind the name, another ID, leaving, and coming back at once, while it is drained, later or
not at all; being lost and found, and allowed less or more. Rounds take a few records each, so that all of it happens
between two of them; every tenth write to the maps fails. In the end the node has what a full recompute from the models
gives, in its maps too.
"""

from ipaddress import ip_network
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from identity.numbering import identity_range
from meshd.daemon import mesh
from meshd.daemon.allowance import Allowance
from meshd.daemon.kernel import MapShape, MapTarget
from meshd.reconcile.execution import execute
from meshd.reconcile.loop import Reconciler
from tests.support.kernel import FakeMaps, random_faults
from tests.support.peer import Peer
from tests.support.world import IDS, World, saying
from wire.codec import Scope
from wire.keys import SHARED_KINDS, Kind, prefix

REMOTES = ("cluster2", "cluster3")
OFTEN = ["put"] * 5 + ["hear"] * 4 + ["delete"] * 3 + ["step", "connect", "round"] * 2
SELDOM = ["cut", "compact", "wipe", "renumber", "leave", "part", "back", "lose", "find", "allow", "own", "refresh"]
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
        self.reconciler = Reconciler("maps", MapTarget(self.maps), MapShape())
        self.reconciler.delta = self.world.maps
        self.now = 0.0
        self.gone: set[str] = set()
        """Clusters without a file."""

    def act(self, action: str, cluster: str, what: int, which: int, how: int) -> None:
        peer = self.peers[cluster]
        _, built = saying(cluster, what, which, how, peer.number)
        ((key, value),) = built.items()
        if cluster in self.gone and action in {"step", "hear", "connect", "leave", "part", "lose", "find", "allow"}:
            return
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
                self.work()
            case "own":
                self.world.say("cluster1", *saying("cluster1", 3 if how % 2 else what, which, how))
            case _:
                self.refresh()

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
        self.work()

    def work(self) -> None:
        """One round on the maps."""
        self.now += 60.0
        one = self.reconciler
        for item in one.retries.due(self.now):
            one.delta.touch(item)
        if (round := one.delta.plan()) is not None:
            one.record(execute(round, one.target, one.shape, one.delta.realised, one.delta.possible), self.now)
        one.settle(self.now)

    def end(self) -> None:
        """All is heard, and nothing fails any more."""
        for peer in self.peers.values():
            if peer.cluster not in self.gone:
                peer.catch_up()
        self.maps.fails = lambda op, map, key: False
        for _ in range(20):
            self.refresh()

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
    assert not node.reconciler.retries.failures
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
    node.end()
    assert node.world.picture() == node.model().picture()
    assert node.maps.content["md_ipcache"]
