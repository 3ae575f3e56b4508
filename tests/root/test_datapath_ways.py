"""What carries packets to a node, and whose packets are believed. The topology is drawn in tests/support/twonodes.py;
in mode direct the pods' packets pass br0 as they are.
"""

import errno
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address

import pytest

from datapath import entries
from datapath.attach import attach_network
from datapath.entries import Direct, Entry
from datapath.layout import DropReason
from tests.support.capture import Capture, capturing, tunnelled
from tests.support.twonodes import CLUSTER_IDS, TUNNEL_PORT, Node, TwoNodes, by_tunnel, two_nodes

pytestmark = pytest.mark.root
SIXES = {"a": IPv6Address("fd00:172::1"), "b": IPv6Address("fd00:172::2")}
FAMILIES = [socket.AF_INET, socket.AF_INET6]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path_factory.mktemp("ways")) as made:
        for node in (made.a, made.b):
            node.namespace.ip("addr", "add", f"{SIXES[node.name]}/64", "dev", "eth0", "nodad")
            for device in ("all", "default", "eth0", "md_vxlan"):
                node.namespace.sysctl(f"ipv4/conf/{device}/rp_filter", "1")
            node.namespace.call(lambda n=node: attach_network(underlay(n), n.loaded.programs))  # type: ignore[misc]
        yield made


def underlay(node: Node) -> int:
    return int(node.namespace.ip("-o", "link", "show", "dev", "eth0").split(":")[0])


def directly(node: Node, other: Node, *, mtu: int = 1500) -> Entry:
    """The entry by which `node` reaches the other one without a tunnel, each family by its own address."""
    return entries.node_entry(
        other.underlay,
        cluster_id=CLUSTER_IDS[other.name],
        remote=True,
        tunnel_ifindex=node.tunnel.ifindex,
        tunnel_mtu=1450,
        direct4=Direct(underlay(node), other.underlay, mtu),
        direct6=Direct(underlay(node), SIXES[other.name], mtu),
    )


@contextmanager
def direct(mesh: TwoNodes, *, mtu: int = 1500) -> Iterator[None]:
    mesh.a.write(directly(mesh.a, mesh.b, mtu=mtu))
    mesh.b.write(directly(mesh.b, mesh.a, mtu=mtu))
    try:
        yield
    finally:
        mesh.a.write(by_tunnel(mesh.a, mesh.b))
        mesh.b.write(by_tunnel(mesh.b, mesh.a))


def inner(capture: Capture) -> list[object]:
    return [seen for frame in capture.seen() if (seen := tunnelled(frame, TUNNEL_PORT))]


def drops(node: Node, reason: DropReason) -> int:
    return node.maps.drops()[reason]


def pump(sender: socket.socket, receiver: socket.socket, stop: threading.Event) -> int:
    """Bytes that arrived while somebody else did something."""
    arrived = 0
    sender.settimeout(10)

    def send() -> None:
        while not stop.is_set():
            sender.sendall(bytes(1 << 16))
        sender.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    while data := receiver.recv(1 << 20):
        arrived += len(data)
    thread.join()
    return arrived


@pytest.mark.parametrize("family", FAMILIES)
def test_direct_packets_keep_their_source_and_need_no_tunnel(mesh: TwoNodes, family: int) -> None:
    with direct(mesh), mesh.server.bound(family) as server, capturing(mesh.switch, "to-a") as capture:
        with mesh.client.namespace.socket(family, socket.SOCK_STREAM) as client:
            client.connect(server.getsockname()[:2])
            accepted, peer = server.accept()
            with accepted:
                assert peer[0] == mesh.client.address(family)
                client.sendall(b"there")
                assert accepted.recv(100) == b"there"
                accepted.sendall(b"back")
                assert client.recv(100) == b"back"
        assert inner(capture) == []


def test_a_transfer_lives_while_each_side_goes_direct_and_back_at_its_own_time(mesh: TwoNodes) -> None:
    with mesh.server.bound(socket.AF_INET) as server:
        client = mesh.client.namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
        client.connect(server.getsockname())
        accepted, _ = server.accept()
        accepted.settimeout(10)
        stop = threading.Event()

        def flip() -> None:
            for _ in range(10):
                mesh.a.write(directly(mesh.a, mesh.b))
                stop.wait(0.03)
                mesh.b.write(directly(mesh.b, mesh.a))
                stop.wait(0.03)
                mesh.a.write(by_tunnel(mesh.a, mesh.b))
                stop.wait(0.03)
                mesh.b.write(by_tunnel(mesh.b, mesh.a))
                stop.wait(0.03)
            stop.set()

        flipping = threading.Thread(target=flip)
        flipping.start()
        with client, accepted:
            arrived = pump(client, accepted, stop)
        flipping.join()
    assert arrived > 10 << 20


def test_a_smaller_underlay_is_told_by_icmp_in_direct_mode_too(mesh: TwoNodes) -> None:
    with direct(mesh, mtu=1300), mesh.client.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((str(mesh.server.v4), 9))
        client.setsockopt(0, 10, 2)  # IP_MTU_DISCOVER, DO
        client.send(bytes(1400))
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EMSGSIZE
        assert client.getsockopt(0, 14) == 1300  # IP_MTU


def test_a_node_that_nothing_leads_to_gets_nothing_and_nothing_goes_elsewhere(mesh: TwoNodes) -> None:
    before = drops(mesh.a, DropReason.UNREACHABLE)
    mesh.a.write(entries.node_entry(mesh.b.underlay, cluster_id=2, remote=True))
    try:
        with (
            capturing(mesh.switch, "to-a") as capture,
            mesh.client.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        ):
            client.sendto(b"nowhere", (str(mesh.server.v4), 9))
            assert not [frame for frame in capture.seen() if b"nowhere" in frame]
    finally:
        mesh.a.write(by_tunnel(mesh.a, mesh.b))
    assert drops(mesh.a, DropReason.UNREACHABLE) == before + 1


def speak(mesh: TwoNodes) -> None:
    """One datagram from the client to the server; returns when it has passed the underlay."""
    with (
        capturing(mesh.b.namespace, "md_vxlan") as capture,
        mesh.client.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.sendto(b"hello", (str(mesh.server.v4), 9))
        capture.wait(lambda frame: b"hello" in frame)


def test_an_outer_source_that_is_no_node_is_not_believed(mesh: TwoNodes) -> None:
    before = drops(mesh.b, DropReason.UNKNOWN_NODE)
    mesh.b.remove(by_tunnel(mesh.b, mesh.a))
    try:
        speak(mesh)
        assert drops(mesh.b, DropReason.UNKNOWN_NODE) == before + 1
    finally:
        mesh.b.write(by_tunnel(mesh.b, mesh.a))


@pytest.mark.parametrize(("cluster", "remote"), [(3, True), (2, False)], ids=["another cluster", "our own"])
def test_a_node_of_another_cluster_does_not_speak_for_this_one(mesh: TwoNodes, cluster: int, remote: bool) -> None:
    """The client's address is behind a node of cluster 1, but node a turns out to be somebody else's."""
    home = ip_address("172.31.0.77")
    true = entries.ipcache_entry(mesh.client.v4, identity=mesh.client.identity, tunnel=mesh.a.underlay, remote=True)
    before = drops(mesh.b, DropReason.WRONG_CLUSTER)
    elsewhere = by_tunnel(mesh.b, mesh.a, home)
    mesh.b.write(elsewhere)
    mesh.b.write(entries.ipcache_entry(mesh.client.v4, identity=mesh.client.identity, tunnel=home, remote=True))
    mesh.b.write(entries.node_entry(mesh.a.underlay, cluster_id=cluster, remote=remote))
    try:
        speak(mesh)
        assert drops(mesh.b, DropReason.WRONG_CLUSTER) == before + 1
    finally:
        mesh.b.write(by_tunnel(mesh.b, mesh.a), true)
        mesh.b.remove(elsewhere)


def test_another_node_of_the_same_cluster_may_carry_a_pod_that_moved(mesh: TwoNodes) -> None:
    """The ipcache still says the old node."""
    home = ip_address("172.31.0.77")
    true = entries.ipcache_entry(mesh.client.v4, identity=mesh.client.identity, tunnel=mesh.a.underlay, remote=True)
    elsewhere = by_tunnel(mesh.b, mesh.a, home)
    mesh.b.write(elsewhere)
    mesh.b.write(entries.ipcache_entry(mesh.client.v4, identity=mesh.client.identity, tunnel=home, remote=True))
    server = mesh.server.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        with server, mesh.client.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            server.bind((str(mesh.server.v4), 0))
            client.sendto(b"moved", server.getsockname())
            assert server.recv(100) == b"moved"
    finally:
        mesh.b.write(true)
        mesh.b.remove(elsewhere)


def test_without_an_identity_the_vni_is_0_and_the_packet_passes(mesh: TwoNodes) -> None:
    found = mesh.a.interface(mesh.client.v4)
    facts = {"ifindex": found.ifindex, "mac": found.mac, "host_mac": found.host_mac}
    mesh.a.write(entries.endpoint_entry(mesh.client.v4, identity=0, **facts))  # type: ignore[arg-type]
    server = mesh.server.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        with (
            server,
            capturing(mesh.switch, "to-a") as capture,
            mesh.client.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        ):
            server.bind((str(mesh.server.v4), 0))
            client.sendto(b"anonymous", server.getsockname())
            assert server.recv(100) == b"anonymous"
            packets = [seen for frame in capture.seen() if (seen := tunnelled(frame, TUNNEL_PORT))]
            assert {packet.vni for packet in packets if b"anonymous" in packet.packet} == {0}
    finally:
        mesh.a.write(entries.endpoint_entry(mesh.client.v4, identity=mesh.client.identity, **facts))  # type: ignore[arg-type]


def test_a_local_pod_without_an_entry_is_the_stacks_to_reach(mesh: TwoNodes) -> None:
    """Its interface was not found yet, or it has none of its own: the CNI's route leads there."""
    found = mesh.b.interface(mesh.server.v4)
    facts = {"ifindex": found.ifindex, "mac": found.mac, "host_mac": found.host_mac}
    entry = entries.endpoint_entry(mesh.server.v4, identity=mesh.server.identity, **facts)  # type: ignore[arg-type]
    mesh.b.namespace.ip("route", "add", "10.1.0.0/24", "dev", "md_vxlan", "table", "109")
    mesh.b.namespace.ip("rule", "add", "lookup", "109", "pref", "32109")
    mesh.b.namespace.run("nft", "flush", "chain", "ip", "cni", "post")
    mesh.b.namespace.run("nft", "add rule ip cni post ip daddr != 10.2.0.0/24 masquerade")
    mesh.b.remove(entry)
    server = mesh.server.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        with server, mesh.client.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            server.bind((str(mesh.server.v4), 0))
            client.sendto(b"by the stack", server.getsockname())
            data, peer = server.recvfrom(100)
        assert (data, peer[0]) == (b"by the stack", str(mesh.client.v4))
    finally:
        mesh.b.write(entry)
        mesh.b.namespace.ip("rule", "del", "lookup", "109", "pref", "32109")
        mesh.b.namespace.ip("route", "flush", "table", "109")
        mesh.b.namespace.run("nft", "flush", "chain", "ip", "cni", "post")
        mesh.b.namespace.run("nft", "add rule ip cni post counter masquerade")


@pytest.mark.parametrize("mode", ["tunnel", "direct"])
def test_a_node_speaks_to_a_remote_pod_and_the_answer_finds_it(mesh: TwoNodes, mode: str) -> None:
    """The answer is not masqueraded by the pod's node, whose rule would take it; strict rp_filter on both sides."""
    way = ("dev", "md_vxlan") if mode == "tunnel" else ("via", str(mesh.b.underlay), "dev", "eth0")
    mesh.a.namespace.ip("route", "add", "10.2.0.0/24", *way, "src", str(mesh.a.underlay))
    mesh.a.namespace.ip("link", "set", "md_vxlan", "mtu", "1450")
    mesh.b.namespace.run("nft", "flush", "chain", "ip", "cni", "post")
    mesh.b.namespace.run("nft", "add rule ip cni post ip saddr 10.2.0.0/24 masquerade random")
    switched = direct(mesh) if mode == "direct" else None
    try:
        if switched:
            switched.__enter__()
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            server = mesh.server.namespace.socket(socket.AF_INET, kind)
            client = mesh.a.namespace.socket(socket.AF_INET, kind)
            with server, client:
                server.bind((str(mesh.server.v4), 0))
                if kind == socket.SOCK_DGRAM:
                    client.connect(server.getsockname())
                    client.send(b"question")
                    data, peer = server.recvfrom(100)
                    server.sendto(data + b"?", peer)
                    assert client.recv(100) == b"question?"
                else:
                    server.listen()
                    client.connect(server.getsockname())
                    accepted, peer = server.accept()
                    with accepted:
                        accepted.sendall(struct.pack("!I", 7))
                        assert client.recv(4) == struct.pack("!I", 7)
                assert peer[0] == str(mesh.a.underlay)
    finally:
        if switched:
            switched.__exit__(None, None, None)
        mesh.a.namespace.ip("route", "del", "10.2.0.0/24")
        mesh.b.namespace.run("nft", "flush", "chain", "ip", "cni", "post")
        mesh.b.namespace.run("nft", "add rule ip cni post counter masquerade")
