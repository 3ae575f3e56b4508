"""The loaded policy programs over the parties of a script: each local pod has an interface, packets are run on it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address, ip_network
from itertools import count
from pathlib import Path

from datapath.entries import Entry, cidr_entry, ipcache_entry
from datapath.loader import Loaded, LoadSettings, ensure_loaded
from datapath.maps import Maps
from datapath.policing import outside_entry, policy_entry, subject_entry
from datapath.policylayout import Iface
from tests.support.netns import Namespace, machine
from tests.support.policy_model import Model
from tests.support.testrun import SHOT, frame, run

TUNNEL = ip_address("172.18.2.11")
FIRST_IFINDEX = 100
PORTS = count(20000)


@dataclass
class Bench:
    """One load of the datapath, used by many models one after the other."""

    namespace: Namespace
    loaded: Loaded
    maps: Maps
    written: set[tuple[str, bytes]] = field(default_factory=set)

    def write(self, *entries: Entry) -> None:
        for entry in entries:
            self.maps.upsert(entry.map, {entry.key: entry.value})
            self.written.add((entry.map, entry.key))

    def clear(self) -> None:
        for map, key in self.written:
            self.maps.delete(map, [key])
        self.written.clear()
        for name in ("md_ct4", "md_ct6"):
            self.maps.delete(name, list(self.maps.dump(name)))

    def run(self, program: str, packet: bytes, ifindex: int) -> bool:
        """Whether the packet passes."""
        path = self.loaded.programs.path(program)
        verdict, _ = self.namespace.call(partial(run, path, packet, ifindex=ifindex))
        return verdict != SHOT

    def load(self, model: Model, *, audit: bool = False, revision: int = 1) -> None:
        """Writes what the daemon would write."""
        self.clear()
        self.write(cidr_entry(ip_network("20.0.0.0/16"), identity=2, tunnel=TUNNEL, remote=True))
        for name, party in model.parties.items():
            address = ip_address(party.address)
            if party.kind == "pod":
                remote = party.cluster != model.local
                tunnel = TUNNEL if remote else None
                identity = model.identities[name]
                self.write(ipcache_entry(address, identity=identity, tunnel=tunnel, remote=remote))
            elif party.kind in ("host", "remote-node"):
                self.write(outside_entry(ip_network(address), model.identities[name]))
        for network, number in model.engine.cidrs.numbers.items():
            self.write(outside_entry(network, number))
        self.write(
            *(
                policy_entry(k.subject, k.direction, k.peer, *k.block, allowed=a)
                for k, a in model.engine.table().items()
            )
        )
        for identity, holding in model.engine.holdings().items():
            self.write(subject_entry(identity, revision=revision, closed=holding.closed, audit=audit))
        for name, ifindex in interfaces(model).items():
            self.write(Entry("md_iface", ifindex.to_bytes(4, "little"), bytes(Iface(model.identities[name]))))

    def passes(self, model: Model, source: str, destination: str, protocol: str, port: int) -> bool:
        """Sends a first packet of a new flow from one to the other through the programs on the way."""
        ends = model.parties[source].address, model.parties[destination].address
        packet = frame(*ends, protocol, port, source_port=next(PORTS))
        known = interfaces(model)
        if source in known and not self.run("policy_out", packet, known[source]):
            return False
        return destination not in known or self.run("policy_in", packet, known[destination])


def interfaces(model: Model) -> dict[str, int]:
    """Name → ifindex of local pods."""
    local = [name for name, party in model.parties.items() if party.kind == "pod" and party.cluster == model.local]
    return {name: FIRST_IFINDEX + n for n, name in enumerate(local)}


@contextmanager
def bench(folder: Path, *, most: int = 10, sizes: Mapping[str, int] | None = None) -> Iterator[Bench]:
    """`most`: pods at a time. `sizes`: of maps, if not the usual ones."""
    with machine() as made:
        namespace = made.namespace("policy")
        for n in range(0, most, 2):
            names = f"v{n}", f"v{n + 1}"
            indexes = str(FIRST_IFINDEX + n), str(FIRST_IFINDEX + n + 1)
            namespace.ip(
                "link",
                "add",
                names[0],
                "index",
                indexes[0],
                "type",
                "veth",
                "peer",
                "name",
                names[1],
                "index",
                indexes[1],
            )
        loaded = ensure_loaded(LoadSettings(made.bpffs(folder / "bpf"), f"{made.tag}.p", made.cgroup("p"), sizes or {}))
        with Maps(loaded.folder) as maps:
            yield Bench(namespace, loaded, maps)
