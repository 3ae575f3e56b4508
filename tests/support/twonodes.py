"""Two nodes of two clusters with the real datapath loaded, and pods beside them.

                   switch namespace: bridge br0
                 ┌──────────────┴──────────────┐
172.31.0.1/24  eth0                          eth0  172.31.0.2/24
          ┌─ node a ─────────┐         ┌─ node b ─────────┐
          │ md_vxlan         │         │ md_vxlan         │
          │ masquerade       │         │ masquerade       │
          └─ p1 ──────── p2 ─┘         └─ p1 ─────────────┘
             │            │               │
         10.1.0.1     10.1.0.2        10.2.0.1         /32 each, MTU 1500 everywhere
        fd00:1::1    fd00:1::2       fd00:2::1
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network
from pathlib import Path

from datapath import entries
from datapath.attach import attach_endpoint, attach_tunnel
from datapath.entries import Entry
from datapath.interface import Interface, find_endpoint
from datapath.loader import Loaded, LoadSettings, ensure_loaded
from datapath.maps import Maps
from datapath.pins import Attachment
from meshd.daemon.underlay import netns_cookie
from routing.devices import Device, ensure_vxlan
from tests.support.netns import Machine, Namespace, link, mac_of, machine

TUNNEL_PORT = 8473
CLUSTER_IDS = {"a": 1, "b": 2}
_GATEWAYS = ("169.254.1.1", "fe80::1")


@dataclass
class Pod:
    namespace: Namespace
    device: str
    v4: IPv4Address
    v6: IPv6Address
    identity: int

    def address(self, family: int) -> str:
        return str(self.v4 if family == socket.AF_INET else self.v6)

    def bound(self, family: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket at the pod's address and a free port; a stream listens."""
        server = self.namespace.socket(family, kind)
        server.bind((self.address(family), 0))
        if kind == socket.SOCK_STREAM:
            server.listen(500)
        return server


@dataclass
class Node:
    name: str
    namespace: Namespace
    underlay: IPv4Address | IPv6Address
    settings: LoadSettings
    loaded: Loaded
    maps: Maps
    tunnel: Device
    pods: dict[str, Pod] = field(default_factory=dict)

    @property
    def cgroup(self) -> Path:
        return self.settings.cgroup

    def write(self, *items: Entry) -> None:
        """Upsert entries one by one, in the order given."""
        for entry in items:
            self.maps.upsert(entry.map, {entry.key: entry.value})

    def remove(self, *items: Entry) -> None:
        for entry in items:
            self.maps.delete(entry.map, [entry.key])

    def interface(self, address: IPv4Address | IPv6Address) -> Interface:
        found = self.namespace.call(lambda: find_endpoint(address))
        assert found is not None, f"no interface for {address}"
        return found


@dataclass
class TwoNodes:
    machine: Machine
    switch: Namespace
    a: Node
    b: Node

    @property
    def client(self) -> Pod:
        return self.a.pods["p1"]

    @property
    def bystander(self) -> Pod:
        return self.a.pods["p2"]

    @property
    def server(self) -> Pod:
        return self.b.pods["p1"]


@contextmanager
def two_nodes(
    folder: Path,
    *,
    underlay: tuple[str, str] = ("172.31.0.1/24", "172.31.0.2/24"),
    attachment: Attachment = Attachment.AUTO,
) -> Iterator[TwoNodes]:
    """The picture above, each node knowing the other's pods; with other addresses of the nodes if these are given."""
    with machine() as made:
        switch = made.namespace("switch")
        switch.ip("link", "add", "br0", "type", "bridge")
        switch.ip("link", "set", "br0", "up")
        bpffs = made.bpffs(folder / "bpf")
        a = _node(made, switch, "a", underlay[0], bpffs, attachment)
        b = _node(made, switch, "b", underlay[1], bpffs, attachment)
        add_pod(made, a, "p1", "10.1.0.1", "fd00:1::1", 0x010101)
        add_pod(made, a, "p2", "10.1.0.2", "fd00:1::2", 0x010102)
        add_pod(made, b, "p1", "10.2.0.1", "fd00:2::1", 0x020201)
        introduce(a, b)
        introduce(b, a)
        yield TwoNodes(made, switch, a, b)


def introduce(node: Node, other: Node) -> None:
    """Write who the other node is, and into the node's ipcache its pods (remote) and our own (local)."""
    node.write(entries.node_entry(node.underlay, cluster_id=CLUSTER_IDS[node.name], remote=False, here=True))
    node.write(by_tunnel(node, other))
    for pod in other.pods.values():
        for address in (pod.v4, pod.v6):
            node.write(entries.ipcache_entry(address, identity=pod.identity, tunnel=other.underlay, remote=True))
    for pod in node.pods.values():
        for address in (pod.v4, pod.v6):
            node.write(entries.ipcache_entry(address, identity=pod.identity, tunnel=None, remote=False))


def by_tunnel(node: Node, other: Node, address: IPv4Address | IPv6Address | None = None) -> Entry:
    """The entry by which `node` reaches the other one through the tunnel device."""
    address = address or other.underlay
    return entries.node_entry(
        address,
        cluster_id=CLUSTER_IDS[other.name],
        remote=True,
        tunnel_ifindex=node.tunnel.ifindex,
        tunnel_mtu=entries.inner_mtu(1500, address.version),
    )


def _node(made: Machine, switch: Namespace, name: str, address: str, bpffs: Path, attachment: Attachment) -> Node:
    namespace = made.namespace(name)
    link(switch, f"to-{name}", namespace, "eth0")
    switch.ip("link", "set", f"to-{name}", "master", "br0")
    namespace.ip("addr", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else []))
    namespace.sysctl("ipv4/ip_forward", "1")
    namespace.sysctl("ipv6/conf/all/forwarding", "1")
    namespace.run("nft", "add table ip cni; add chain ip cni post { type nat hook postrouting priority 100; }")
    namespace.run("nft", "add rule ip cni post counter masquerade")
    instance = f"{made.tag}.{name}"
    settings = LoadSettings(bpffs, instance, made.cgroup(name), attachment=attachment)
    loaded = ensure_loaded(settings)
    maps = Maps(loaded.folder)
    made.stack.callback(maps.close)
    tunnel = namespace.call(lambda: ensure_vxlan(alias=f"meshd:{instance}", port=TUNNEL_PORT))
    namespace.call(lambda: attach_tunnel(tunnel.ifindex, loaded.programs))
    node = Node(name, namespace, ip_interface(address).ip, settings, loaded, maps, tunnel)
    cookie = namespace.call(netns_cookie)
    node.write(entries.config_entry(tunnel_ifindex=tunnel.ifindex, underlay_mtu=1500, node_netns=cookie))
    return node


def add_pod(made: Machine, node: Node, name: str, v4: str, v6: str, identity: int) -> Pod:
    """A pod as a CNI makes it, found and attached to as the daemon does."""
    namespace = made.namespace(f"{node.name}-{name}")
    link(node.namespace, name, namespace, "eth0")
    host_mac = mac_of(node.namespace, name)
    for address, gateway, bits in zip((v4, v6), _GATEWAYS, ("32", "128"), strict=True):
        namespace.ip("addr", "add", f"{address}/{bits}", "dev", "eth0")
        namespace.ip("neigh", "add", gateway, "lladdr", host_mac, "dev", "eth0", "nud", "permanent")
        if gateway == _GATEWAYS[0]:
            namespace.ip("route", "add", gateway, "dev", "eth0")
        namespace.ip("route", "add", "default", "via", gateway, "dev", "eth0")
        node.namespace.ip("route", "add", f"{address}/{bits}", "dev", name)
    pod = Pod(namespace, name, IPv4Address(v4), IPv6Address(v6), identity)
    node.pods[name] = pod
    for each in (pod.v4, pod.v6):
        found = node.interface(each)
        node.write(
            entries.endpoint_entry(
                each, ifindex=found.ifindex, mac=found.mac, host_mac=found.host_mac, identity=identity
            )
        )
        node.namespace.call(partial(attach_endpoint, found.ifindex, node.loaded.programs))
    return pod


def add_service(node: Node, frontend: str, port: int, protocol: int, *backends: tuple[str, int]) -> list[Entry]:
    """A global service at `frontend` with backends (address, port); what was written, in order."""
    first = abs(hash((frontend, port, protocol))) % 1_000_000 + 1
    made = [
        entries.backend_entry(first + n, ip_address(address), backend_port, protocol)
        for n, (address, backend_port) in enumerate(backends)
    ]
    ids = list(range(first, first + len(backends)))
    made += entries.service_entries(ip_address(frontend), port, protocol, ids)
    node.write(*made)
    return made


def cidr(node: Node, prefix: str, tunnel: IPv4Address | IPv6Address | None, identity: int = 0) -> Entry:
    """A remote CIDR, written."""
    entry = entries.cidr_entry(ip_network(prefix), identity=identity, tunnel=tunnel, remote=True)
    node.write(entry)
    return entry


def pending(server: socket.socket) -> int:
    """How many datagrams have come to it that nobody has read; they are read."""
    server.settimeout(0)
    count = 0
    while True:
        try:
            server.recv(100)
        except BlockingIOError:
            return count
        count += 1
