"""Runs a script about one service, ns/s of cluster1, as node n1 in zone a sees it: the objects, then what each backend
is to be. It is run twice: on the pure merge, and on the daemon's mesh with strict maps that fail now and then.

    annotations service.cilium.io/global=true …     of cluster1's Service; none: it is not there
    policy Local                                    internalTrafficPolicy
    frontends 30.1.1.1 fd00:30::1                   its ClusterIPs
    ports http:80/TCP :53/UDP
    own 10.0.0.1 http:8080/TCP active n1 zones=a,b  a backend of cluster1: state and node may be left out
    remote cluster2 20.0.0.1 http:80/TCP zones=a    a backend of another cluster
    unshared cluster2                               its record says shared: false
    session-affinity 100                            ClientIP, seconds
    forget cluster2                                 what this cluster said; `forget own`: cluster1's backends
    expect                                          frontends with their backends: used (share), or not and why; what
                                                    the Service says of how one is chosen stands before them
      30.1.1.1:80/TCP
        10.0.0.1:8080 used 50%
        20.0.0.1:80 not ready
      problem …
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

from datapath.description import decode
from datapath.entries import Entry
from globalsvc.merge import FrontendName, GlobalService, Place, merge
from globalsvc.preferences import Balancing
from identity.numbering import identity_range
from meshd.daemon.backends import PROTOCOLS, endpoint_text
from meshd.daemon.kernel import MapShape, MapTarget
from meshd.daemon.members import Members
from meshd.daemon.mesh import Mesh
from meshd.daemon.podtarget import PodShape
from meshd.daemon.restoration import restore
from meshd.daemon.store import Store
from meshd.daemon.watch import Changes
from meshd.reconcile.delta import Delta
from meshd.reconcile.loop import Reconciler
from tests.support.kernel import FakeMaps, random_faults
from tests.support.rounds import Rounds
from wire.codec import Scope, encode
from wire.keys import LOCAL_KINDS, SHARED_KINDS, Kind
from wire.local import LocalBackend, LocalService, ServicePort
from wire.records import ForZone, L4Addr, Node, PortMap, Service, Zone

NAME = "ns/s"
IDS = {"cluster1": 1, "cluster2": 2, "cluster3": 3}
HERE = Place("cluster1", "n1", "a")


@dataclass
class Objects:
    """What the script said so far."""

    annotations: dict[str, str] | None = None
    policy: str = "Cluster"
    affinity_s: int = 0
    frontends: list[str] = field(default_factory=list)
    ports: list[ServicePort] = field(default_factory=list)
    own: dict[str, LocalBackend] = field(default_factory=dict)
    remote: dict[str, dict[str, tuple[PortMap, list[str]]]] = field(default_factory=dict)
    unshared: set[str] = field(default_factory=set)

    def local(self) -> LocalService | None:
        if self.annotations is None:
            return None
        return LocalService(
            namespace="ns",
            name="s",
            annotations=self.annotations,
            cluster_ips=self.frontends,
            ports=self.ports,
            internal_traffic_policy=self.policy,
            session_affinity_timeout_s=self.affinity_s,
            backends=list(self.own.values()),
        )

    def remotes(self) -> dict[str, Service]:
        return {cluster: self._remote(cluster) for cluster in self.remote}

    def _remote(self, cluster: str) -> Service:
        backends = self.remote[cluster]
        return Service(
            cluster=cluster,
            cluster_id=IDS[cluster],
            namespace="ns",
            name="s",
            backends={address: ports for address, (ports, _) in backends.items()},
            zones={address: Zone("", [ForZone(z) for z in zones]) for address, (_, zones) in backends.items()},
            shared=cluster not in self.unshared,
        )


class Pure:
    """The merge alone, with its own memory of min-healthy."""

    def __init__(self) -> None:
        self._spilling: dict[FrontendName, bool] = {}

    def lines(self, objects: Objects) -> list[str]:
        service = merge(objects.local(), objects.remotes(), place=HERE, spilling=self._spilling)
        if service is None:
            return ["not global"]
        self._spilling = {(f.address, f.port, f.protocol): f.spilling for f in service.frontends}
        return list(_lines(service))


class Meshed:
    """The daemon's mesh on strict maps of which every tenth write fails: the lines are the merge's, once the maps were
    found to agree with them.
    """

    def __init__(self, seed: int = 0) -> None:
        self.store, self.maps = Store(lambda: None), FakeMaps()
        self.maps.fails = random_faults(seed)
        reconciler = Reconciler("maps", MapTarget(self.maps), MapShape())
        self.rounds = Rounds(reconciler)
        members = Members("cluster1", 1, max_clusters=255)
        self.mesh = Mesh(self.store, members, node="n1", maps=reconciler.delta, pods=Delta(PodShape()))
        for cluster, number in IDS.items():
            members.join(cluster, number)
            self.store.accept(cluster, Scope(cluster, number, identity_range(number)))
            for kind in (*SHARED_KINDS, *(LOCAL_KINDS if cluster == "cluster1" else ())):
                self.store.listed(cluster, kind, now=0.0)
        node = Node(name="n1", cluster="cluster1", cluster_id=1, labels={"topology.kubernetes.io/zone": "a"})
        self._say("cluster1", Kind.NODE, "n1", encode(node))

    def lines(self, objects: Objects) -> list[str]:
        local, remotes = objects.local(), objects.remotes()
        self._say("cluster1", Kind.LOCAL_SERVICE, NAME, encode(local) if local else None)
        for cluster in IDS.keys() - {"cluster1"}:
            record = remotes.get(cluster)
            self._say(cluster, Kind.SERVICE, NAME, encode(record) if record else None)
        while self.mesh.refresh():
            pass
        self.rounds.settle()
        assert not self.rounds.failing
        service = self.mesh.merging.merge(NAME)
        self._agree(service)
        return list(_lines(service)) if service else ["not global"]

    def _agree(self, service: GlobalService | None) -> None:
        found = restore(self.maps.content, max_clusters=255).services
        wanted = {
            (frontend.address, frontend.port, PROTOCOLS[frontend.protocol]): {
                (b.address, b.port, PROTOCOLS[b.protocol]) for b in frontend.backends
            }
            for frontend in (service.frontends if service else ())
        }
        assert {key: set(backends) for key, backends in found.frontends.items()} == wanted
        assert set(found.numbers.values()) == set().union(*wanted.values())
        affine = {decode(Entry("md_affm", *item))["backend_id"] for item in self.maps.content["md_affm"].items()}
        timeout = service.session_affinity_timeout_s if service else 0
        assert affine == (set(found.numbers) if timeout else set())
        maglev = service is not None and service.balancing is Balancing.MAGLEV
        assert len(self.maps.content["md_maglev"]) == (sum(map(bool, wanted.values())) if maglev else 0)

    def _say(self, cluster: str, kind: Kind, name: str, value: bytes | None) -> None:
        changes = Changes({name: value}) if value is not None else Changes({}, {name})
        self.store.apply(cluster, kind, changes, now=0.0)


def run(text: str, subject: Pure | Meshed) -> None:
    """Raises AssertionError with the line's number where the lines are not those expected."""
    objects = Objects()
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words or line[0] == " ":
            continue
        if words != ["expect"]:
            _say(objects, words)
            continue
        expected = list(_block(lines[number:]))
        seen = subject.lines(objects)
        assert seen == expected, "\n".join([f"line {number}, seen:", *(f"  {line}" for line in seen)])


def _say(objects: Objects, words: list[str]) -> None:
    match words:
        case ["annotations", *pairs]:
            objects.annotations = dict(pair.replace("+", " ").split("=", 1) for pair in pairs)
        case ["policy", policy]:
            objects.policy = policy
        case ["session-affinity", seconds]:
            objects.affinity_s = int(seconds)
        case ["frontends", *addresses]:
            objects.frontends = addresses
        case ["ports", *ports]:
            named = [(name, port) for each in ports for name, port in _port_map(each).items()]
            objects.ports = [ServicePort(name=name, port=port.port, protocol=port.protocol) for name, port in named]
        case ["own", address, ports, *rest]:
            objects.own[address] = _own(address, ports, rest)
        case ["remote", cluster, address, ports, *rest]:
            objects.remote.setdefault(cluster, {})[address] = (_port_map(ports), _zones(rest))
        case ["unshared", cluster]:
            objects.unshared.add(cluster)
        case ["forget", "own"]:
            objects.own.clear()
        case ["forget", cluster]:
            objects.remote.pop(cluster, None)
        case _:
            raise AssertionError(f"no such step: {' '.join(words)}")


def _own(address: str, ports: str, rest: list[str]) -> LocalBackend:
    state = next((word for word in rest if word in ("active", "terminating", "not-ready")), "active")
    node = next((word for word in rest if word.startswith("n") and word != "not-ready"), "")
    return LocalBackend(
        ip=address,
        ports=_port_map(ports),
        state=state,  # type: ignore[arg-type]
        node=node,
        for_zones=_zones(rest),
    )


def _port_map(text: str) -> PortMap:
    """`web:80/TCP,dns:53/UDP`"""
    ports = {}
    for each in text.split(","):
        name, _, rest = each.rpartition(":")
        port, _, protocol = rest.partition("/")
        ports[name] = L4Addr(protocol, int(port))
    return ports


def _zones(words: list[str]) -> list[str]:
    return [zone for word in words if word.startswith("zones=") for zone in word[6:].split(",")]


def _lines(service: GlobalService) -> Iterator[str]:
    if not service.is_global:
        yield "not global"
    if service.balancing:
        yield f"chosen {service.balancing}"
    if service.session_affinity_timeout_s:
        yield f"session affinity {service.session_affinity_timeout_s} s"
    for frontend in service.frontends:
        yield endpoint_text((frontend.address, frontend.port, PROTOCOLS[frontend.protocol]))
        weights = frontend.weights or (1,) * len(frontend.backends)
        shares = dict(zip(frontend.backends, (weight / sum(weights) for weight in weights), strict=True))
        for backend, choice in frontend.candidates:
            text = f"  {ip_address(backend.address)}:{backend.port}"
            share = f" {shares[backend]:.0%}" if backend in shares else ""
            reason = "" if choice.reason == "active" else f" {choice.reason}"
            yield f"{text}{' used' if choice.used else ''}{share}{reason}"
    for backend, choice in service.unmatched:
        yield f"unmatched {backend.address}:{backend.port} {choice.reason}"
    for problem in service.problems:
        yield f"problem {problem}"


def _block(lines: list[str]) -> Iterator[str]:
    for line in lines:
        if not line.startswith(" "):
            return
        yield line.removeprefix("  ").rstrip()
