"""Global services from records to maps, with everything that a Service may ask for: whatever the history and the order,
what stands is what computing afresh gives, in the shares that the merge says; and saying it again writes nothing.

Left out is min-healthy, which remembers by intention (tests/scripts/services/min-healthy.txt).
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import cast

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from datapath.description import decode
from datapath.entries import Entry
from datapath.servicelayout import SvcFlag
from datapath.slots import CHANCE_ONE
from identity.numbering import identity_range
from meshd.daemon.backends import PROTOCOLS, Endpoint, endpoint_of
from meshd.daemon.frontends import FrontendKey
from meshd.daemon.kernel import MAPS, MapShape, MapTarget
from meshd.daemon.members import Members
from meshd.daemon.mesh import Mesh
from meshd.daemon.podtarget import PodShape
from meshd.daemon.restoration import restore
from meshd.daemon.store import Store
from meshd.daemon.watch import Changes
from meshd.reconcile.delta import Delta
from meshd.reconcile.execution import execute
from tests.support.kernel import FakeMaps
from wire.codec import Scope, encode
from wire.keys import LOCAL_KINDS, SHARED_KINDS, Kind
from wire.local import LocalBackend, LocalService, ServicePort
from wire.records import ForZone, L4Addr, Node, PortMap, Service, Zone

IDS = {"cluster1": 1, "cluster2": 2, "cluster3": 3}
NAMES = ["a", "b", "c"]
OWN = "cluster1"
ASKED = [
    {"service.cilium.io/affinity": "local"},
    {"io.cilium/service-affinity": "remote"},
    {"service.cilium.io/affinity": "nearest"},
    {"meshd.io/cluster-priority": "cluster3,cluster2"},
    {"meshd.io/cluster-weights": "cluster1=8,cluster2=1"},
    {"meshd.io/cluster-weights": "cluster1=0,cluster3=5"},
    {"meshd.io/drain-clusters": "cluster2"},
    {"meshd.io/zone-hints": "true"},
    {"meshd.io/load-balancing": "maglev"},
]
PORTS: list[PortMap] = [
    {"http": L4Addr("TCP", 8080)},
    {"": L4Addr("TCP", 80)},
    {"http": L4Addr("TCP", 80), "web": L4Addr("TCP", 80), "dns": L4Addr("UDP", 53)},
    {"sctp": L4Addr("SCTP", 132)},
]
FRONT_PORTS = [
    ServicePort(name=name, protocol=protocol, port=port)
    for name, protocol, port in (("http", "TCP", 80), ("dns", "UDP", 53), ("sctp", "SCTP", 132))
]
HOSTS = [f"10.0.0.{n}" for n in range(1, 7)] + ["fd00::1", "fd00::2"]
ZONES = st.lists(st.sampled_from(["a", "b"]), unique=True, max_size=2)
Key = tuple[str, str]
Record = LocalService | Service


@st.composite
def annotations(draw: st.DrawFn) -> dict[str, str]:
    chosen = draw(st.lists(st.sampled_from(ASKED), max_size=3))
    is_global = draw(st.sampled_from(["true", "true", "true", "false", "maybe"]))
    return {"service.cilium.io/global": is_global} | {name: value for each in chosen for name, value in each.items()}


BACKENDS = st.builds(
    LocalBackend,
    ip=st.sampled_from(HOSTS),
    ports=st.sampled_from(PORTS),
    state=st.sampled_from(["active", "active", "terminating", "not-ready"]),
    node=st.sampled_from(["n1", "n2", ""]),
    for_zones=ZONES,
)


@st.composite
def steps(draw: st.DrawFn) -> tuple[Key, Record | None]:
    cluster, name = draw(st.sampled_from(sorted(IDS))), draw(st.sampled_from(NAMES))
    if draw(st.integers(0, 5)) == 0:
        return (cluster, name), None
    if cluster == OWN:
        return (cluster, name), draw(_local(name))
    ports = draw(st.dictionaries(st.sampled_from(HOSTS), st.sampled_from(PORTS), max_size=5))
    zones = {ip: Zone("", [ForZone(zone) for zone in draw(ZONES)]) for ip in ports}
    shared = draw(st.integers(0, 4)) > 0
    record = Service(
        cluster=cluster,
        cluster_id=IDS[cluster],
        namespace="ns",
        name=name,
        backends=dict(ports),
        zones=zones,
        shared=shared,
    )
    return (cluster, name), record


def _local(name: str) -> st.SearchStrategy[LocalService]:
    number = NAMES.index(name)
    return st.builds(
        LocalService,
        namespace=st.just("ns"),
        name=st.just(name),
        annotations=annotations(),
        cluster_ips=st.sampled_from([[f"30.1.1.{number}"], [f"30.1.1.{number}", f"fd00:30::{number}"], []]),
        ports=st.lists(st.sampled_from(FRONT_PORTS), unique_by=lambda port: port.name, max_size=3),
        session_affinity_timeout_s=st.sampled_from([0, 0, 60]),
        internal_traffic_policy=st.sampled_from(["Cluster", "Cluster", "Cluster", "Local"]),
        backends=st.lists(BACKENDS, unique_by=lambda backend: backend.ip, max_size=5),
    )


@dataclass
class World:
    """Node n1 in zone a of cluster1."""

    maps: FakeMaps = field(default_factory=FakeMaps)
    said: dict[Key, Record] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store, self.delta = Store(lambda: None), Delta(MapShape())
        members = Members(OWN, 1, max_clusters=255)
        self.mesh = Mesh(self.store, members, node="n1", maps=self.delta, pods=Delta(PodShape()))
        held = {name: self.maps.dump(name) for name in MAPS}
        for name, entries in held.items():
            self.delta.restore(name, entries)
        self.mesh.restore(restore(held, max_clusters=255))
        for cluster, number in IDS.items():
            members.join(cluster, number)
            self.store.accept(cluster, Scope(cluster, number, identity_range(number)))
        node = Node(name="n1", cluster=OWN, cluster_id=1, labels={"topology.kubernetes.io/zone": "a"})
        self.store.apply(OWN, Kind.NODE, Changes({"n1": encode(node)}), now=0.0)

    def sync(self) -> None:
        for cluster in IDS:
            for kind in (*SHARED_KINDS, *(LOCAL_KINDS if cluster == OWN else ())):
                self.store.listed(cluster, kind, now=0.0)

    def say(self, key: Key, record: Record | None) -> None:
        cluster, name = key[0], f"ns/{key[1]}"
        kind = Kind.LOCAL_SERVICE if cluster == OWN else Kind.SERVICE
        self.said.pop(key, None)
        if record is not None:
            self.said[key] = record
        changes = Changes({name: encode(record)}) if record is not None else Changes({}, {name})
        self.store.apply(cluster, kind, changes, now=0.0)

    def write(self) -> int:
        """Operations on the maps."""
        while self.mesh.refresh():
            pass
        if not (round := self.delta.plan()):
            return 0
        outcome = execute(round, MapTarget(self.maps), MapShape(), self.delta.realised, {})
        assert not outcome.failed
        for name, written in outcome.done.items():
            self.delta.record(name, written)
        return sum(map(len, outcome.done.values()))

    def entries(self) -> int:
        return sum(len(entries) for name, entries in self.maps.content.items() if name != "md_numbers")


@dataclass
class Picture:
    """What the kernel has, without numbers and slots, which depend on the history."""

    shares: dict[FrontendKey, dict[Endpoint, float]]
    timeouts: dict[FrontendKey, int]
    clients_may_stay: dict[FrontendKey, set[Endpoint]]
    tables: dict[FrontendKey, list[Endpoint]]

    def same(self, other: "Picture") -> None:
        assert (self.timeouts, self.clients_may_stay) == (other.timeouts, other.clients_may_stay)
        assert self.tables == other.tables
        assert self.shares.keys() == other.shares.keys()
        for key, shares in self.shares.items():
            assert shares.keys() == other.shares[key].keys()
            assert all(abs(share - other.shares[key][endpoint]) < 1e-3 for endpoint, share in shares.items())


def picture(maps: FakeMaps) -> Picture:
    backends = {
        int.from_bytes(key, "little"): endpoint_of(Entry(name, key, value))
        for name in ("md_be4", "md_be6")
        for key, value in maps.content[name].items()
    }
    slots: defaultdict[FrontendKey, dict[int, dict[str, int]]] = defaultdict(dict)
    heads: dict[FrontendKey, dict[str, int]] = {}
    for name in ("md_svc4", "md_svc6"):
        for facts in _facts(maps, name):
            key = _key(facts)
            if "count" in facts:
                heads[key] = facts
            else:
                slots[key][facts["slot"]] = facts
    shares = {key: _shares(slots[key], head["count"], backends) for key, head in heads.items()}
    staying: defaultdict[FrontendKey, set[Endpoint]] = defaultdict(set)
    for facts in _facts(maps, "md_affm"):
        staying[_key(facts)].add(backends[facts["backend_id"]])
    tables = {}
    for at, value in maps.content["md_maglev"].items():
        key = _key(cast(dict[str, int], decode(Entry("md_maglev", at, value))))
        tables[key] = [backends[int(number)] for number in np.frombuffer(value, dtype=np.uint32)]
        assert SvcFlag.MAGLEV in SvcFlag(heads[key]["flags"])
    timeouts = {key: head.get("session_affinity_timeout_s", 0) for key, head in heads.items()}
    used = {endpoint for each in shares.values() for endpoint in each}
    assert used == set(backends.values())  # no entry that nobody refers to
    return Picture(shares, timeouts, dict(staying), tables)


def _facts(maps: FakeMaps, name: str) -> list[dict[str, int]]:
    return [cast(dict[str, int], decode(Entry(name, *item))) for item in maps.content[name].items()]


def _key(facts: dict[str, int]) -> FrontendKey:
    return cast(FrontendKey, (facts["address"], facts["port"], facts["protocol"]))


def _shares(slots: dict[int, dict[str, int]], count: int, backends: dict[int, Endpoint]) -> dict[Endpoint, float]:
    """As the programs choose: a slot at random, and by its chance its alias."""
    assert sorted(slots) == list(range(1, count + 1))
    found: defaultdict[Endpoint, float] = defaultdict(float)
    for facts in slots.values():
        chance = facts.get("chance", 0) / CHANCE_ONE
        found[backends[facts["backend_id"]]] += (1 - chance) / count
        if chance:
            found[backends[slots[facts["alias"]]["backend_id"]]] += chance / count
    return dict(found)


def merged(world: World) -> dict[FrontendKey, dict[Endpoint, float]]:
    """The shares that the merge says."""
    wanted = {}
    for name in NAMES:
        service = world.mesh.merging.merge(f"ns/{name}")
        for frontend in service.frontends if service else ():
            weights = frontend.weights or (1,) * len(frontend.backends)
            wanted[frontend.address, frontend.port, PROTOCOLS[frontend.protocol]] = {
                (b.address, b.port, PROTOCOLS[b.protocol]): weight / sum(weights)
                for b, weight in zip(frontend.backends, weights, strict=True)
            }
    return wanted


def afresh(said: Iterable[tuple[Key, Record]]) -> World:
    world = World()
    world.sync()
    for key, record in said:
        world.say(key, record)
    world.write()
    return world


HISTORY = st.lists(steps(), max_size=12)


@settings(max_examples=80)
@given(HISTORY, st.randoms())
def test_any_history_in_any_order_gives_what_computing_afresh_gives(
    history: list[tuple[Key, Record | None]], random: Random
) -> None:
    world = World()
    world.sync()
    for key, record in history:
        world.say(key, record)
        world.write()
    said = list(world.said.items())
    random.shuffle(said)
    full = afresh(said)
    seen = picture(world.maps)
    seen.same(picture(full.maps))
    assert world.entries() == full.entries()
    wanted = merged(world)
    assert {key: set(each) for key, each in seen.shares.items()} == {key: set(each) for key, each in wanted.items()}
    for at, shares in seen.shares.items():
        assert all(abs(share - wanted[at][endpoint]) < 1e-3 for endpoint, share in shares.items())


@settings(max_examples=80)
@given(HISTORY)
def test_saying_it_again_or_restarting_writes_nothing(history: list[tuple[Key, Record | None]]) -> None:
    world = World()
    world.sync()
    for key, record in history:
        world.say(key, record)
        world.write()
    for key, record in list(world.said.items()):
        world.say(key, record)
    assert world.write() == 0
    again = World(world.maps)
    for key, record in world.said.items():
        again.say(key, record)
    again.sync()
    assert again.write() == 0
