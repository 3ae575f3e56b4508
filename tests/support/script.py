"""Runs a script: what clusters say, line by line, and what then stands in the maps of node n1 of cluster1.

    cluster2 node n1 172.18.2.11 20.0.0.0/24        a record of the cluster; kinds: node, ip, service, local
    cluster2 bad ip 20.0.0.1                        a value that is not JSON
    cluster2 gone ip 20.0.0.1
    cluster2 synced | leaves | joins
    interface 10.0.0.1 7
    restart                                         a new process on the same maps, that has heard nothing yet
    expect                                          the indented lines below are everything that stands
      30.1.1.1:80 -> 10.0.0.1 20.0.0.1
    writes 0                                        operations on the maps since the last `expect` or `writes`

The maps fail now and then; whatever failed is tried again until it is done, or until the test gives up.
"""

from collections.abc import Iterator
from ipaddress import ip_address
from typing import cast

from datapath.description import decode
from datapath.entries import Entry
from identity.numbering import identity_range
from meshd.daemon.kernel import MAPS, MapShape, MapTarget, describe_entry
from meshd.daemon.members import Members
from meshd.daemon.mesh import PODS, Mesh
from meshd.daemon.podtarget import PodShape, PodTarget
from meshd.daemon.restoration import restore
from meshd.daemon.store import Store
from meshd.daemon.watch import Changes
from meshd.reconcile.loop import Reconciler
from tests.support import records
from tests.support.kernel import FakeInterfaces, FakeMaps, random_faults
from tests.support.rounds import Rounds
from tests.support.surroundings import answers
from wire.codec import Scope
from wire.keys import LOCAL_KINDS, SHARED_KINDS, Kind, prefix

IDS = {"cluster1": 1, "cluster2": 2, "cluster3": 3}
KINDS = {"node": Kind.NODE, "ip": Kind.IP, "service": Kind.SERVICE, "local": Kind.LOCAL_SERVICE}
OWN, NODE = "cluster1", "n1"


class Node:
    """The daemon's parts on fake maps, without processes, connections or time."""

    def __init__(self, maps: FakeMaps, interfaces: FakeInterfaces) -> None:
        self.store = Store(lambda: None)
        self.members = Members(OWN, IDS[OWN], max_clusters=255)
        target = PodTarget(maps, find=interfaces.find, attach=interfaces.attach, police=interfaces.police)
        self.maps = Reconciler("maps", MapTarget(maps), MapShape())
        self.pods = Reconciler("pods", target, PodShape())
        self.mesh = Mesh(self.store, self.members, node=NODE, maps=self.maps.delta, pods=self.pods.delta)
        held = {name: maps.dump(name) for name in MAPS}
        for name, entries in held.items():
            self.maps.delta.restore(name, entries)
        self.pods.delta.restore(PODS, target.dump(PODS))
        self.mesh.restore(restore(held, max_clusters=255))
        for cluster in IDS:
            self.store.expect(cluster)
        self.rounds = Rounds(self.maps, self.pods)

    def join(self, cluster: str) -> None:
        self.members.join(cluster, IDS[cluster])
        self.store.accept(cluster, Scope(cluster, IDS[cluster], identity_range(IDS[cluster])))

    def settle(self) -> None:
        """Rounds until nothing is left to do."""
        while self.mesh.refresh():
            pass
        self.mesh.surround(answers(self.mesh.nodes.needs()))
        while self.mesh.refresh():
            pass
        self.rounds.settle()


class Script:
    """Runs lines; raises AssertionError with the line's number where what stands is not what is expected."""

    def __init__(self, name: str) -> None:
        self.maps, self.interfaces = FakeMaps(), FakeInterfaces()
        self.maps.fails = random_faults(sum(name.encode()))
        self.node = Node(self.maps, self.interfaces)
        self._writes = 0

    def run(self, text: str) -> None:
        lines = text.splitlines()
        for number, line in enumerate(lines, 1):
            words = line.partition("#")[0].split()
            if not words or line[0] == " ":
                continue
            expected = list(_block(lines[number:])) if words == ["expect"] else []
            try:
                self._step(words, expected)
            except AssertionError as error:
                raise AssertionError(f"line {number}: {line}\n{error}") from error

    def _step(self, words: list[str], expected: list[str]) -> None:
        match words:
            case ["restart"]:
                self.node = Node(self.maps, self.interfaces)
            case ["interface", address, ifindex]:
                self.interfaces.add(ip_address(address), int(ifindex))
            case ["expect"]:
                self.node.settle()
                self._writes = len(self.maps.writes)
                seen = list(self.seen())
                assert seen == sorted(expected), "\n".join(["there stands:", *(f"  {line}" for line in seen)])
            case ["writes", count]:
                self.node.settle()
                since, self._writes = self.maps.writes[self._writes :], len(self.maps.writes)
                assert len(since) == int(count), since
            case [cluster, *rest]:
                if self.node.store.clusters.get(cluster) is None or self.node.store.clusters[cluster].scope is None:
                    self.node.join(cluster)
                self._say(cluster, *rest)

    def _say(self, cluster: str, verb: str, *words: str) -> None:
        store, number = self.node.store, IDS[cluster]
        match verb, *words:
            case ["joins"]:
                pass
            case ["synced"]:
                for kind in (*SHARED_KINDS, *(LOCAL_KINDS if cluster == OWN else ())):
                    store.listed(cluster, kind, now=0.0)
            case ["leaves"]:
                store.drain(cluster)
                self.node.members.leave(cluster)
            case ["gone", kind, name]:
                store.apply(cluster, KINDS[kind], Changes({}, {name}), now=0.0)
            case ["bad", kind, name]:
                store.apply(cluster, KINDS[kind], Changes({name: b"?"}), now=0.0)
            case ["node", name, address, cidr]:
                self._put(cluster, Kind.NODE, records.node(cluster, number, name, address, cidr))
            case ["ip", address, host, identity]:
                self._put(cluster, Kind.IP, records.ip(cluster, address, host, int(identity)))
            case ["service", name, *backends]:
                self._put(cluster, Kind.SERVICE, records.service(cluster, number, name, *backends))
            case ["local", name, frontend, *backends]:
                self._put(cluster, Kind.LOCAL_SERVICE, records.local_service(cluster, name, frontend, *backends))
            case _:
                raise AssertionError(f"no such step: {verb} {' '.join(words)}")

    def _put(self, cluster: str, kind: Kind, built: records.Records) -> None:
        start = prefix(kind, cluster)
        puts = {key.removeprefix(start): value.encode() for key, value in built.items()}
        self.node.store.apply(cluster, kind, Changes(puts), now=0.0)

    def seen(self) -> Iterator[str]:
        """Everything that stands, sorted, a line each. Entries that no frontend leads to are lines too."""
        lines = [describe_entry(n, *item) for n in ("md_ipcache", "md_cidrs") for item in self.maps.content[n].items()]
        services = restore(self.maps.content, max_clusters=255).services
        for (address, port, _), backends in services.frontends.items():
            lines.append(f"{address}:{port} -> {' '.join(sorted(str(backend[0]) for backend in backends))}".rstrip())
        used = {backend for backends in services.frontends.values() for backend in backends}
        lines += [f"unused backend {backend[0]}" for backend in services.numbers.values() if backend not in used]
        slots = sum(len(backends) + 1 for backends in services.frontends.values())
        if extra := len(self.maps.content["md_svc4"]) - slots:
            lines.append(f"{extra} unused slots")
        for item in self.maps.content["md_endpoint"].items():
            facts = decode(Entry("md_endpoint", *item))
            lines.append(f"pod {facts['address']} ifindex={cast(int, facts['ifindex'])}")
        yield from sorted(lines)


def _block(lines: list[str]) -> Iterator[str]:
    for line in lines:
        if not line.startswith(" "):
            return
        yield " ".join(line.partition("#")[0].split())
