"""Two nodes of two clusters under what CNIs leave on them: NAT rules, a bridge, pods without an interface of their own.
The plan is the daemon's (tests/support/planned.py); strict reverse path filters everywhere.

                     switch: bridge br0
172.31.0.1  eth0 ─────────┴─────────── eth0  172.31.0.2
       ┌─ node a ──────┐        ┌─ node b ───────────────────────────────────────┐
       │ masquerade    │        │ masquerade       cni0 10.2.0.254     mv0 10.2.0.253
       └─ p1 ── p2 ────┘        └─ p1 ───────────── br1 ── br2 ─────────── mv ───┘
     10.1.0.1  10.1.0.2         10.2.0.1      10.2.0.11  10.2.0.12      10.2.0.21
"""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from datapath import entries
from datapath.attach import attach_endpoint
from datapath.interface import NoInterface, find_endpoint
from routing.plan import Mode
from tests.support.netns import Namespace, link, mac_of
from tests.support.planned import plan
from tests.support.twonodes import Node, Pod, TwoNodes, two_nodes

pytestmark = pytest.mark.root
MODES = pytest.mark.parametrize("mode", [Mode.TUNNEL, Mode.DIRECT])
KINDNET = """
-A POSTROUTING -m addrtype ! --dst-type LOCAL -j KIND-MASQ-AGENT
-A KIND-MASQ-AGENT -d {cluster} -j RETURN
-A KIND-MASQ-AGENT -j MASQUERADE"""
FLANNEL = """
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN
-A FLANNEL-POSTRTG -s {pods} -d {cluster} -j RETURN
-A FLANNEL-POSTRTG -s {cluster} -d {pods} -j RETURN
-A FLANNEL-POSTRTG ! -s {cluster} -d {pods} -j RETURN
-A FLANNEL-POSTRTG -s {cluster} ! -d 224.0.0.0/4 -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s {cluster} -d {cluster} -j MASQUERADE --random-fully"""
BRIDGE = """
-A POSTROUTING -s {pods} -j CNI-0
-A CNI-0 -d {pods} -j ACCEPT
-A CNI-0 ! -d 224.0.0.0/4 -j MASQUERADE"""
CALICO = """
table ip calico {{
  set cali40masq-ipam-pools {{ type ipv4_addr; flags interval; elements = {{ {cluster} }} }}
  set cali40all-ipam-pools {{ type ipv4_addr; flags interval; elements = {{ {cluster} }} }}
  chain cali-nat-outgoing {{
    ip saddr @cali40masq-ipam-pools ip daddr != @cali40all-ipam-pools counter masquerade fully-random
  }}
  chain cali-POSTROUTING {{
    type nat hook postrouting priority srcnat;
    jump cali-nat-outgoing
  }}
}}"""
CNIS = {"kindnet": KINDNET, "flannel": FLANNEL, "bridge": BRIDGE, "calico": CALICO}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path_factory.mktemp("topologies")) as made:
        for node in (made.a, made.b):
            for device in ("all", "default", "eth0", "md_vxlan", *node.pods):
                node.namespace.sysctl(f"ipv4/conf/{device}/rp_filter", "1")
            node.namespace.run("nft", "flush", "ruleset")
        yield made


@contextmanager
def nat(mesh: TwoNodes, cni: str) -> Iterator[None]:
    """The rules that the CNI leaves on a node of each cluster, in the form that it writes them."""
    try:
        for number, node in ((1, mesh.a), (2, mesh.b)):
            rules = CNIS[cni].format(pods=f"10.{number}.0.0/24", cluster=f"10.{number}.0.0/16")
            if cni == "calico":
                node.namespace.run("nft", rules)
                continue
            chains = {word for line in rules.split("\n") for word in line.split()[1:2]} - {"POSTROUTING"}
            text = "\n".join(["*nat", *(f":{chain} - [0:0]" for chain in chains), rules, "COMMIT", ""])
            node.namespace.run("sh", "-c", f"printf %s '{text}' | iptables-restore")
        yield
    finally:
        for node in (mesh.a, mesh.b):
            node.namespace.run("nft", "flush", "ruleset")


def spoken(client: Namespace, server: Namespace, address: IPv4Address | IPv6Address, kind: int) -> str:
    """A question and its answer; whom the server saw."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with closing(server.socket(family, kind)) as listener, closing(client.socket(family, kind)) as asking:
        listener.bind((str(address), 0))
        if kind == socket.SOCK_DGRAM:
            asking.sendto(b"?", listener.getsockname())
            question, peer = listener.recvfrom(10)
            listener.sendto(b"!" + question, peer)
            assert asking.recvfrom(10) == (b"!?", listener.getsockname())
            return str(peer[0])
        listener.listen()
        asking.connect(listener.getsockname())
        accepted, peer = listener.accept()
        with closing(accepted):
            accepted.sendall(b"!")
            assert asking.recv(1) == b"!"
        return str(peer[0])


def speak_all_ways(mesh: TwoNodes, here: Pod, there: Pod, node: Node) -> None:
    """Both pods to each other with their own addresses, and `here`'s node to the other pod with the node's."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        assert spoken(here.namespace, there.namespace, there.v4, kind) == str(here.v4)
        assert spoken(there.namespace, here.namespace, here.v4, kind) == str(there.v4)
        assert spoken(node.namespace, there.namespace, there.v4, kind) == str(node.underlay)


@MODES
@pytest.mark.parametrize("cni", CNIS)
def test_the_source_is_the_pods_whatever_nat_the_cni_does(mesh: TwoNodes, cni: str, mode: Mode) -> None:
    plan(mesh, mode)
    with nat(mesh, cni):
        speak_all_ways(mesh, mesh.client, mesh.server, mesh.a)
        speak_all_ways(mesh, mesh.server, mesh.client, mesh.b)
        rules = mesh.a.namespace.run("nft", "list", "ruleset")
        assert "masquerade" in rules


def bridged(mesh: TwoNodes, name: str, last: int) -> Pod:
    """A pod of node b behind the bridge, as the bridge plugin makes it."""
    node, address = mesh.b, IPv4Address(f"10.2.0.{last}")
    namespace = mesh.machine.namespace(name)
    link(node.namespace, name, namespace, "eth0")
    node.namespace.ip("link", "set", name, "master", "cni0")
    namespace.ip("addr", "add", f"{address}/24", "dev", "eth0")
    namespace.ip("route", "add", "default", "via", "10.2.0.254")
    return introduced(mesh, Pod(namespace, name, address, IPv6Address(f"fd00:2::{last}"), 0x020200 + last))


def introduced(mesh: TwoNodes, pod: Pod) -> Pod:
    """Both nodes know the pod of node b."""
    mesh.a.write(entries.ipcache_entry(pod.v4, identity=pod.identity, tunnel=mesh.b.underlay, remote=True))
    mesh.b.write(entries.ipcache_entry(pod.v4, identity=pod.identity, tunnel=None, remote=False))
    return pod


@MODES
def test_pods_of_a_bridge_are_found_at_their_ports(mesh: TwoNodes, mode: Mode) -> None:
    plan(mesh, mode)
    node = mesh.b.namespace
    for command in ("link add cni0 type bridge", "addr add 10.2.0.254/24 dev cni0", "link set cni0 up"):
        node.ip(*command.split())
    tag = f"{mode}"[0]
    try:
        pods = [bridged(mesh, f"br{tag}{n}", 10 + n) for n in (1, 2)]
        for pod in pods:
            found = mesh.b.interface(pod.v4)
            assert found.name == pod.device
            where = partial(entries.endpoint_entry, ifindex=found.ifindex, mac=found.mac, host_mac=found.host_mac)
            mesh.b.write(where(pod.v4, identity=pod.identity))
            node.call(partial(attach_endpoint, found.ifindex, mesh.b.loaded.programs))
        with nat(mesh, "bridge"):
            for pod in pods:
                speak_all_ways(mesh, mesh.client, pod, mesh.a)
            assert spoken(pods[0].namespace, pods[1].namespace, pods[1].v4, socket.SOCK_STREAM) == str(pods[0].v4)
    finally:
        node.ip("link", "del", "cni0")
        for pod in pods:
            node.ip("link", "del", pod.device)


@MODES
def test_a_pod_without_an_interface_of_its_own_is_served_by_the_stack(mesh: TwoNodes, mode: Mode) -> None:
    """macvlan: the node has one device for all such pods. In mode tunnel what they answer a remote node goes the CNI's
    way, where strict filters end it.
    """
    plan(mesh, mode)
    node, namespace = mesh.b.namespace, mesh.machine.namespace(f"mv{mode}")
    pod = Pod(namespace, "eth0", IPv4Address("10.2.0.21"), IPv6Address("fd00:2::21"), 0x020215)
    try:
        for command in (
            "link add up0 type veth peer name up1",
            "link set up0 up",
            "link set up1 up",
            "link add mv0 link up0 type macvlan mode bridge",
            "addr add 10.2.0.253/32 dev mv0",
            "link set mv0 up",
            "route add 10.2.0.21 dev mv0",
            f"link add link up0 name mv1 netns {namespace.name} type macvlan mode bridge",
        ):
            node.ip(*command.split())
        namespace.ip("link", "set", "mv1", "up")
        namespace.ip("addr", "add", "10.2.0.21/32", "dev", "mv1")
        namespace.ip("neigh", "add", "10.2.0.253", "lladdr", mac_of(node, "mv0"), "dev", "mv1")
        namespace.ip("route", "add", "10.2.0.253", "dev", "mv1")
        namespace.ip("route", "add", "default", "via", "10.2.0.253")
        with pytest.raises(NoInterface, match="behind the macvlan device mv0"):
            node.call(lambda: find_endpoint(pod.v4))
        introduced(mesh, pod)
        assert spoken(mesh.client.namespace, namespace, pod.v4, socket.SOCK_STREAM) == str(mesh.client.v4)
        assert spoken(namespace, mesh.client.namespace, mesh.client.v4, socket.SOCK_STREAM) == str(pod.v4)
        if mode is Mode.DIRECT:
            speak_all_ways(mesh, mesh.client, pod, mesh.a)
    finally:
        node.ip("link", "del", "up0")


def test_policy_routing_of_the_host_comes_first(mesh: TwoNodes) -> None:
    """The way to the other node is that of the host's own rules, and what these say of pods' prefixes holds too."""
    try:
        mesh.switch.ip("link", "add", "br9", "type", "bridge")
        mesh.switch.ip("link", "set", "br9", "up")
        for node, other in ((mesh.a, mesh.b), (mesh.b, mesh.a)):
            link(mesh.switch, f"x-{node.name}", node.namespace, "eth1")
            mesh.switch.ip("link", "set", f"x-{node.name}", "master", "br9")
            node.namespace.ip("route", "add", str(other.underlay), "dev", "eth1", "table", "77")
            node.namespace.ip("rule", "add", "to", str(other.underlay), "lookup", "77", "pref", "100")
        routes = plan(mesh, Mode.DIRECT)["a"]
        assert {route.hop.device for route in routes if route.prefix.version == 4 and route.hop} == {"eth1"}
        speak_all_ways(mesh, mesh.client, mesh.server, mesh.a)
        mesh.a.namespace.ip("rule", "add", "to", "10.2.0.0/24", "lookup", "78", "pref", "101")
        mesh.a.namespace.ip("route", "add", "unreachable", "10.2.0.0/24", "table", "78")
        with pytest.raises(OSError, match="No route to host"):
            spoken(mesh.a.namespace, mesh.server.namespace, mesh.server.v4, socket.SOCK_STREAM)
    finally:
        for node in (mesh.a, mesh.b):
            node.namespace.run("sh", "-c", "ip rule del pref 100; ip rule del pref 101; ip link del eth1; true")
        mesh.switch.ip("link", "del", "br9")


def test_ipv6_only(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No IPv4 on any node or pod; both ways."""
    nodes = ("fd00:172::1/64", "fd00:172::2/64")
    with two_nodes(tmp_path_factory.mktemp("six"), underlay=nodes) as mesh:
        for node in (mesh.a, mesh.b):
            for pod in node.pods.values():
                pod.namespace.ip("-4", "addr", "flush", "dev", "eth0")
            for other in (mesh.a, mesh.b):
                for pod in other.pods.values() if other is not node else ():
                    node.write(entries.ipcache_entry(pod.v6, identity=pod.identity, tunnel=other.underlay, remote=True))
        assert "inet 172" not in mesh.a.namespace.ip("addr")
        for mode in (Mode.TUNNEL, Mode.DIRECT):
            plan(mesh, mode)
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                here, there = mesh.client, mesh.server
                assert spoken(here.namespace, there.namespace, there.v6, kind) == str(here.v6)
                assert spoken(there.namespace, here.namespace, here.v6, kind) == str(there.v6)
                assert spoken(mesh.a.namespace, there.namespace, there.v6, kind) == str(mesh.a.underlay)
            assert ip_address(mesh.a.underlay).version == 6
