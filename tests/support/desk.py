"""Policing on a desk: what a test says of two clusters goes in, what the kernel shall hold comes out."""

import json
from typing import Any

from datapath.description import decode
from datapath.entries import Entry
from identity.numbering import identity_range
from meshd.daemon.kernel import MapTarget, PinnedMaps, PolicyShape
from meshd.daemon.members import Members
from meshd.daemon.policing import Policing
from meshd.daemon.store import Store
from meshd.daemon.watch import Changes
from meshd.reconcile.execution import execute
from meshd.reconcile.loop import Reconciler
from meshd.reconcile.target import Item
from policy.model import Mode
from tests.support.kernel import FakeMaps
from wire.codec import Scope
from wire.keys import LOCAL_KINDS, SHARED_KINDS, Kind
from wire.labels import CLUSTER_LABEL, NAMESPACE_LABEL, format_labels
from wire.records import Label

IDS = {"cluster1": 1, "cluster2": 2}
POD, FRIEND, FAR = 65536 + 1, 65536 + 2, 2 * 65536 + 1
NAME = "CiliumNetworkPolicy/default/p"
Facts = list[dict[str, Any]]


class Desk:
    """A node of cluster1 that hears what a test says."""

    def __init__(
        self,
        *,
        mode: Mode = Mode.ENFORCE,
        namespaces: dict[str, Mode] | None = None,
        maps: PinnedMaps | None = None,
    ) -> None:
        self.store = Store(lambda: None)
        self.members = Members("cluster1", 1, max_clusters=255)
        self.maps = maps or FakeMaps()
        self.target = Reconciler("policy", MapTarget(self.maps), PolicyShape())
        self.delta = self.target.delta
        self.moved: list[set[int]] = []
        self.lost: list[Item] = []
        self.policing = Policing(
            self.store,
            self.members,
            delta=self.delta,
            changed_pods=lambda policed, withheld, moved: self.moved.append(set(moved)),
            mode=mode,
            namespaces=namespaces,
            failing=lambda: [*self.target.retries.failures, *self.lost],
        )
        for cluster, number in IDS.items():
            self.members.join(cluster, number)
            self.store.accept(cluster, Scope(cluster, number, identity_range(number)))

    def say(self, cluster: str, kind: Kind, name: str, value: bytes | None) -> None:
        changes = Changes({name: value}) if value is not None else Changes({}, {name})
        self.store.apply(cluster, kind, changes, now=0.0)

    def identity(self, number: int, app: str, *, namespace: str = "default") -> None:
        cluster = "cluster1" if number < 2 * 65536 else "cluster2"
        labels = [Label("app", app), Label(CLUSTER_LABEL, cluster), Label(NAMESPACE_LABEL, namespace)]
        self.say(cluster, Kind.IDENTITY, str(number), format_labels(labels).encode())

    def policy(self, *rules: dict[str, Any], name: str = NAME) -> None:
        self.rules({"ingress": list(rules)}, name=name)

    def rules(self, rules: dict[str, Any], *, name: str = NAME) -> None:
        spec = {"endpointSelector": {"matchLabels": {"app": "pod"}}, **rules}
        self.say("cluster1", Kind.POLICY, name, json.dumps({"spec": spec}).encode())

    def sync(self, cluster: str) -> None:
        for kind in (*SHARED_KINDS, *(LOCAL_KINDS if cluster == "cluster1" else ())):
            self.store.listed(cluster, kind, now=0.0)

    def round(self) -> bool:
        self.policing.take(self.store.take(1000))
        return self.policing.refresh()

    def settle(self) -> None:
        while self.round():
            pass

    def step(self) -> bool:
        """One round, with the reconciler's. True: there is more to do."""
        more = self.round()
        if round := self.delta.plan():
            target, delta = self.target, self.delta
            outcome = execute(round, target.target, target.shape, delta.realised, delta.possible)
            target.record(outcome, 0.0)
        self.target.settle(0.0)
        return more or self.policing.feels_shortage()

    def work(self) -> None:
        """Rounds until nothing is left to do."""
        while self.step():
            pass

    def again(self) -> None:
        """What failed is due."""
        for item in self.target.retries.failures:
            self.delta.touch(item)
        self.work()

    def held(self, map: str) -> Facts:
        return [decode(Entry(map, key, value)) for key, value in sorted(self.maps.dump(map).items())]

    def wanted(self, map: str) -> Facts:
        return [decode(Entry(map, key, value)) for key, value in sorted(self.delta.desired[map].items())]


def ready(**how: Any) -> Desk:
    """POD is here, everybody has been heard, and a policy lets FRIEND in."""
    desk = Desk(**how)
    desk.identity(POD, "pod")
    desk.identity(FRIEND, "friend")
    desk.identity(FAR, "friend")
    desk.policy({"fromEndpoints": [{"matchLabels": {"app": "friend"}}]})
    desk.policing.set_here({POD})
    for cluster in IDS:
        desk.sync(cluster)
    return desk
