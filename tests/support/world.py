"""The whole computation of a node without connections and kernel: what was said goes in, what is desired comes out."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from identity.numbering import identity_range
from meshd.daemon.allowance import OWN_CLUSTER, Allowance
from meshd.daemon.kernel import MapShape, describe_entry
from meshd.daemon.members import Members
from meshd.daemon.mesh import PODS, Mesh
from meshd.daemon.podtarget import PodShape
from meshd.daemon.restoration import restore
from meshd.daemon.store import Store
from meshd.daemon.watch import Changes
from meshd.reconcile.delta import Delta
from tests.support import records
from tests.support.surroundings import answers
from wire.codec import Scope
from wire.keys import LOCAL_KINDS, SHARED_KINDS, Kind, prefix

IDS = {"cluster1": 1, "cluster2": 2, "cluster3": 3}
Content = dict[tuple[str, Kind, str], bytes]
"""Everything that is said: cluster, kind, name → value."""


@dataclass
class World:
    """A node n1 of cluster1, and what it was told."""

    content: Content = field(default_factory=dict)
    maps: Delta = field(default_factory=lambda: Delta(MapShape()))
    pods: Delta = field(default_factory=lambda: Delta(PodShape()))
    heard: bool = True
    """Our own cluster's first lists are complete."""
    ids: Mapping[str, int] = field(default_factory=lambda: IDS)
    allowed: dict[str, Allowance] = field(default_factory=dict)
    """What clusters may say; all if they are not here."""

    def __post_init__(self) -> None:
        self.store = Store(lambda: None)
        self.members = Members("cluster1", 1, max_clusters=255)
        self.mesh = Mesh(
            self.store,
            self.members,
            node="n1",
            maps=self.maps,
            pods=self.pods,
            allowance=lambda cluster: self.allowed.get(cluster, OWN_CLUSTER),
        )
        for cluster, number in self.ids.items():
            self.join(cluster, number)
        if self.heard:
            self.sync("cluster1")

    def join(self, cluster: str, number: int) -> None:
        self.members.join(cluster, number)
        self.store.accept(cluster, Scope(cluster, number, identity_range(number)))

    def say(self, cluster: str, kind: Kind, built: Mapping[str, str]) -> None:
        start = prefix(kind, cluster)
        for key, value in built.items():
            name = key.removeprefix(start)
            self.content[cluster, kind, name] = value.encode()
            self.store.apply(cluster, kind, Changes({name: value.encode()}), now=0.0)

    def unsay(self, cluster: str, kind: Kind, name: str) -> None:
        if self.content.pop((cluster, kind, name), None) is not None:
            self.store.apply(cluster, kind, Changes({}, {name}), now=0.0)

    def leave(self, cluster: str) -> None:
        self.store.drain(cluster)
        self.members.leave(cluster)
        self.content = {key: value for key, value in self.content.items() if key[0] != cluster}

    def sync(self, cluster: str) -> None:
        for kind in (*SHARED_KINDS, *(LOCAL_KINDS if cluster == "cluster1" else ())):
            self.store.listed(cluster, kind, now=0.0)

    def refresh(self) -> None:
        while self.mesh.refresh():
            pass
        self.mesh.surround(answers(self.mesh.nodes.needs()))
        while self.mesh.refresh():
            pass

    def recomputed(self) -> "World":
        """Another node that hears the same at once."""
        full = World(ids=self.ids)
        for (cluster, kind, name), value in self.content.items():
            full.store.apply(cluster, kind, Changes({name: value}), now=0.0)
        full.refresh()
        full.content = self.content
        return full

    def refused(self) -> dict[tuple[str, Kind, str], str]:
        """What is in quarantine, with the reason."""
        return {
            (cluster, kind, name): held.reason for cluster, kind, name, held in self.mesh.suspicion.quarantine.items()
        }

    def picture(self) -> dict[str, object]:
        """What is desired, without the numbers of backends, which depend on the history."""
        desired = self.maps.desired
        services = restore(desired, max_clusters=255).services
        frontends = {key: sorted(map(str, backends)) for key, backends in services.frontends.items()}
        plain = {n: sorted(describe_entry(n, *item) for item in desired[n].items()) for n in ("md_ipcache", "md_cidrs")}
        return plain | {"frontends": frontends, "pods": self.pods.desired[PODS], "entries": self.count()}

    def count(self) -> int:
        """Without how far the numbers of backends are, which depends on the history."""
        return sum(len(entries) for name, entries in self.maps.desired.items() if name != "md_numbers")


HOSTS = ["172.18.1.11", "172.18.1.12", "172.18.2.11", ""]


def saying(cluster: str, what: int, which: int, how: int, number: int = 0) -> tuple[Kind, records.Records]:
    """One of a few records, so that they meet each other: several clusters claim the same addresses and prefixes."""
    number = number or IDS[cluster]
    match what:
        case 0:
            return Kind.NODE, records.node(cluster, number, f"n{which}", HOSTS[how % 3], f"20.0.{how}.0/24")
        case 1:
            identity = identity_range(number)[1] if how % 2 else 1
            return Kind.IP, records.ip(cluster, f"20.0.0.{which}", HOSTS[how], identity)
        case 2:
            backends = [f"20.0.0.{host}" for host in range(how)]
            return Kind.SERVICE, records.service(cluster, number, f"ns/s{which}", *backends, port=80 * (how % 2))
        case _:
            own = [f"10.0.0.{host}" for host in range(how)]
            frontend = f"30.1.1.{which if how % 2 else 1}"
            return Kind.LOCAL_SERVICE, records.local_service("cluster1", f"ns/s{which}", frontend, *own)
