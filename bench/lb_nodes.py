"""Nodes for `bench lb`: a network namespace with a client's and a server's pod, and the rules of one load balancer.

Every node masquerades what leaves for elsewhere, as CNIs do: so the kernel tracks connections in all of them.
"""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, IPv4Network, ip_address
from pathlib import Path

from bench import kube_proxy
from datapath.attach import attach_endpoint
from datapath.entries import (
    Entry,
    backend_entry,
    config_entry,
    endpoint_entry,
    ipcache_entry,
    service_entries,
)
from datapath.interface import find_endpoint
from datapath.loader import LoadSettings, ensure_loaded
from datapath.maps import Maps
from meshd.testbed import cgroup as cgroups
from meshd.testbed import netns

CLIENT, SERVER = "10.0.0.1", "10.0.0.2"
PODS = IPv4Network("10.0.0.0/24")
FRONTEND = IPv4Address("30.1.0.0")
PORT, BACKENDS = 8080, 4
TCP = 6
GATEWAY = "169.254.1.1"
IDENTITY = 0x010101
FREE_PORTS = "1024 65535"


@dataclass
class Node:
    """`tag` begins the names of all its namespaces."""

    tag: str
    stack: ExitStack = field(default_factory=ExitStack)

    def namespace(self, pod: str = "") -> str:
        return f"{self.tag}-{pod}" if pod else self.tag

    def create(self) -> None:
        names = [self.namespace(), self.namespace("client"), self.namespace("server")]
        self.stack.callback(netns.remove, names)
        netns.ip(f"netns add {name}" for name in names)
        netns.sysctl(["net.ipv4.ip_forward=1"], namespace=self.tag)
        for pod, address in (("client", CLIENT), ("server", SERVER)):
            self._add_pod(pod, address)
        netns.nft(
            "add table ip cni; add chain ip cni post { type nat hook postrouting priority 100; };"
            "add rule ip cni post ip daddr != 10.0.0.0/8 masquerade",
            namespace=self.tag,
        )

    def _add_pod(self, pod: str, address: str) -> None:
        name = self.namespace(pod)
        netns.ip([f"link add {pod} type veth peer name eth0 netns {name}", f"link set {pod} up"], namespace=self.tag)
        netns.ip(["link set lo up", "link set eth0 up", f"addr add {address}/32 dev eth0"], namespace=name)
        netns.ip([f"addr add {GATEWAY}/32 dev {pod}", f"route add {address} dev {pod}"], namespace=self.tag)
        netns.ip([f"route add {GATEWAY} dev eth0", f"route add default via {GATEWAY} dev eth0"], namespace=name)
        netns.sysctl(["net.ipv4.tcp_tw_reuse=1", f"net.ipv4.ip_local_port_range={FREE_PORTS}"], namespace=name)


def frontend(number: int) -> IPv4Address:
    """The ClusterIP of the n-th service."""
    return FRONTEND + number


def measured(services: int) -> int:
    """The service that is asked: in the middle, where a walk over rules takes the average time."""
    return services // 2


def add_iptables(node: Node, services: int) -> list[str]:
    """As kube-proxy's iptables mode (bench/kube_proxy.py); the lines for iptables-restore."""
    frontends, backends = [frontend(n) for n in range(services)], [(SERVER, PORT + n) for n in range(BACKENDS)]
    lines = kube_proxy.rules(frontends, measured(services), PODS, backends)
    text = "\n".join([*lines, ""])
    subprocess.run(["iptables-restore"], input=text, text=True, check=True, preexec_fn=netns.entering(node.namespace()))
    return lines


def add_nftables(node: Node, services: int) -> None:
    """As kube-proxy's nftables mode: one look-up in a verdict map, then a random choice."""
    chains = "".join(f"add chain ip lb svc{n};" for n in range(services))
    entries = ", ".join(f"{frontend(n)} . tcp . 80 : goto svc{n}" for n in range(services))
    targets = ", ".join(f"{n} : {SERVER} . {PORT + n}" for n in range(BACKENDS))
    netns.nft(
        f"add table ip lb; add chain ip lb services; {chains}"
        "add map ip lb services { type ipv4_addr . inet_proto . inet_service : verdict; };"
        f"add element ip lb services {{ {entries} }};"
        "add chain ip lb pre { type nat hook prerouting priority dstnat; };"
        "add rule ip lb pre ip daddr . meta l4proto . th dport vmap @services;"
        f"add rule ip lb svc{measured(services)} meta l4proto tcp dnat ip to numgen random mod {BACKENDS} "
        f"map {{ {targets} }}",
        namespace=node.namespace(),
    )


@dataclass
class Meshed:
    """A node with our datapath; programs that are started in `cgroup` have socket hooks."""

    node: Node
    maps: Maps
    cgroup: Path


def add_mesh(node: Node, bpffs: Path, services: int) -> Meshed:
    """Our programs on both pods, and services as the daemon would write them."""
    cgroup = cgroups.find_root() / node.tag
    cgroup.mkdir()
    node.stack.callback(cgroups.remove, cgroup)
    loaded = ensure_loaded(LoadSettings(bpffs, node.tag, cgroup))
    maps = Maps(loaded.folder)
    node.stack.callback(maps.close)
    made = [config_entry(tunnel_ifindex=0, underlay_mtu=0)]
    for address in map(ip_address, (CLIENT, SERVER)):
        found = netns.inside(node.namespace(), partial(find_endpoint, address))
        if found is None:
            raise RuntimeError(f"{address} has no interface")
        netns.inside(node.namespace(), partial(attach_endpoint, found.ifindex, loaded.programs))
        number, mac, host_mac = found.ifindex, found.mac, found.host_mac
        made.append(ipcache_entry(address, identity=IDENTITY, tunnel=None, remote=False))
        made.append(endpoint_entry(address, ifindex=number, mac=mac, host_mac=host_mac, identity=IDENTITY))
    ids = range(1, BACKENDS + 1)
    made += [backend_entry(number, ip_address(SERVER), PORT + number - 1, TCP) for number in ids]
    write(maps, made)
    for number in range(services):
        write(maps, service_entries(frontend(number), 80, TCP, list(ids)))
    return Meshed(node, maps, cgroup)


def write(maps: Maps, entries: Sequence[Entry]) -> None:
    for entry in entries:
        maps.upsert(entry.map, {entry.key: entry.value})


@contextmanager
def bpf_folder(folder: Path) -> Iterator[Path]:
    """A bpffs of our own."""
    subprocess.run(["mount", "-t", "bpf", "bpf", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
