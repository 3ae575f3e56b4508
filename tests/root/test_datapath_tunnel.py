"""Pods of two clusters through the tunnel. The topology is drawn in tests/support/twonodes.py."""

import errno
import socket
import struct
import threading
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from datapath import entries
from datapath.layout import DropReason
from tests.support.capture import Tunnelled, capturing, is_fragment, tunnelled
from tests.support.twonodes import TUNNEL_PORT, Node, Pod, TwoNodes, by_tunnel, cidr, introduce, two_nodes

pytestmark = pytest.mark.root

TCP_SYN = 0x02


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path_factory.mktemp("mesh")) as made:
        yield made


def connected(source: Pod, server: socket.socket) -> tuple[socket.socket, socket.socket, str]:
    """Client and accepted socket, and who the server sees."""
    client = source.namespace.socket(server.family, socket.SOCK_STREAM)
    client.connect(server.getsockname()[:2])
    accepted, peer = server.accept()
    accepted.settimeout(5)
    return client, accepted, peer[0]


def transfer(sender: socket.socket, receiver: socket.socket, size: int) -> None:
    """Send `size` bytes and see them all arrive."""
    thread = threading.Thread(target=sender.sendall, args=(bytes(size),))
    thread.start()
    left = size
    while left:
        got = len(receiver.recv(1 << 20))
        assert got, "connection ended early"
        left -= got
    thread.join()


def inner(frames: list[bytes]) -> list[Tunnelled]:
    return [seen for frame in frames if (seen := tunnelled(frame, TUNNEL_PORT))]


def mss_of(packet: bytes) -> int | None:
    """The MSS that a TCP SYN announces; None for another packet."""
    start = 40 if packet[0] >> 4 == 6 else (packet[0] & 15) * 4
    protocol = packet[6] if start == 40 and packet[0] >> 4 == 6 else packet[9]
    if protocol != 6 or not packet[start + 13] & TCP_SYN:
        return None
    assert packet[start + 20] == 2, "Linux puts the MSS option first"
    return int(struct.unpack_from("!H", packet, start + 22)[0])


def drops(node: Node, reason: DropReason) -> int:
    return node.maps.drops()[reason]


@pytest.mark.parametrize(("family", "mss"), [(socket.AF_INET, 1410), (socket.AF_INET6, 1390)])
def test_tcp_keeps_its_source_carries_the_identity_and_is_never_cut(mesh: TwoNodes, family: int, mss: int) -> None:
    client_address = mesh.client.v4 if family == socket.AF_INET else mesh.client.v6
    with mesh.server.bound(family) as server, capturing(mesh.switch, "to-a") as capture:
        client, accepted, peer = connected(mesh.client, server)
        with client, accepted:
            assert ip_address(peer) == client_address
            transfer(client, accepted, 4 << 20)
            transfer(accepted, client, 4 << 20)
        frames = capture.seen()
    assert not any(is_fragment(frame) for frame in frames)
    packets = inner(frames)
    there = [p for p in packets if p.source == client_address]
    back = [p for p in packets if p.destination == client_address]
    assert {p.vni for p in there} == {mesh.client.identity}
    assert {p.vni for p in back} == {mesh.server.identity}
    assert {p.outer for p in there} == {(mesh.a.underlay, mesh.b.underlay)}
    assert {p.ttl for p in there} == {63}
    assert {mss_of(p.packet) for p in packets} == {None, mss}


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_udp_reaches_the_other_cluster_and_is_answered(mesh: TwoNodes, family: int) -> None:
    server = mesh.server.namespace.socket(family, socket.SOCK_DGRAM)
    client = mesh.client.namespace.socket(family, socket.SOCK_DGRAM)
    with server, client:
        server.bind((mesh.server.address(family), 0))
        client.sendto(b"ping", server.getsockname()[:2])
        data, peer = server.recvfrom(100)
        server.sendto(data + b"-pong", peer)
        assert client.recv(100) == b"ping-pong"


def test_icmp_echo_passes(mesh: TwoNodes) -> None:
    mesh.client.namespace.sysctl("ipv4/ping_group_range", "0 0")
    with mesh.client.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as ping:
        ping.sendto(struct.pack("!BBHHH", 8, 0, 0, 0, 1) + b"x" * 32, (str(mesh.server.v4), 0))
        data, peer = ping.recvfrom(1000)
    assert (data[0], peer[0]) == (0, str(mesh.server.v4))


@pytest.mark.parametrize(("family", "fits"), [(socket.AF_INET, 1450 - 28), (socket.AF_INET6, 1450 - 48)])
def test_a_datagram_that_does_not_fit_is_refused_with_the_right_size(mesh: TwoNodes, family: int, fits: int) -> None:
    """ICMP "too big" teaches the sender: EMSGSIZE, and no piece of a packet on the underlay."""
    server = mesh.server.namespace.socket(family, socket.SOCK_DGRAM)
    client = mesh.client.namespace.socket(family, socket.SOCK_DGRAM)
    before = drops(mesh.a, DropReason.TOO_BIG)
    with server, client, capturing(mesh.switch, "to-a") as capture:
        server.bind((mesh.server.address(family), 0))
        client.connect(server.getsockname()[:2])
        client.setsockopt(*((0, 10, 2) if family == socket.AF_INET else (41, 23, 2)))  # *_MTU_DISCOVER, DO
        client.send(bytes(fits + 1))
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EMSGSIZE
        with pytest.raises(OSError, match="Message too long"):
            client.send(bytes(fits + 1))
        client.send(bytes(fits))
        assert len(server.recv(2000)) == fits
        assert not any(is_fragment(frame) for frame in capture.seen())
    assert drops(mesh.a, DropReason.TOO_BIG) == before + 1


def test_a_source_that_is_not_the_pods_own_is_dropped(mesh: TwoNodes) -> None:
    before = drops(mesh.a, DropReason.SPOOFED)
    mesh.client.namespace.ip("addr", "add", f"{mesh.bystander.v4}/32", "dev", "lo")
    try:
        with (
            capturing(mesh.switch, "to-a") as capture,
            mesh.client.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as liar,
        ):
            liar.bind((str(mesh.bystander.v4), 0))
            liar.sendto(b"lie", (str(mesh.server.v4), 9))
            liar.sendto(b"lie", (str(mesh.server.v4), 9))
            assert inner(capture.seen()) == []
    finally:
        mesh.client.namespace.ip("addr", "del", f"{mesh.bystander.v4}/32", "dev", "lo")
    assert drops(mesh.a, DropReason.SPOOFED) == before + 2


def test_the_underlay_may_be_ipv6(mesh: TwoNodes) -> None:
    sixes = {"a": ip_address("fd00:172::1"), "b": ip_address("fd00:172::2")}
    here, there = ((mesh.a, mesh.client), (mesh.b, mesh.server))
    for (node, _), (other, pod) in ((here, there), (there, here)):
        node.namespace.ip("addr", "add", f"{sixes[node.name]}/64", "dev", "eth0", "nodad")
        node.write(by_tunnel(node, other, sixes[other.name]))
        node.write(entries.ipcache_entry(pod.v4, identity=pod.identity, tunnel=sixes[other.name], remote=True))
    try:
        with mesh.server.bound(socket.AF_INET) as server, capturing(mesh.switch, "to-a") as capture:
            client, accepted, peer = connected(mesh.client, server)
            with client, accepted:
                assert peer == str(mesh.client.v4)
                transfer(client, accepted, 1 << 20)
            frames = capture.seen()
    finally:
        introduce(mesh.a, mesh.b)
        introduce(mesh.b, mesh.a)
    assert not inner(frames), "nothing over IPv4"
    # Ethernet 14, IPv6 40, UDP 8, VXLAN 8, Ethernet 14: the SYNs' MSS is 1500 - 70 - 40.
    inside = [frame[84:] for frame in frames if frame[12:14] == b"\x86\xdd" and frame[20] == socket.IPPROTO_UDP]
    assert {mss_of(packet) for packet in inside} == {None, 1390}


def test_an_identity_that_does_not_fit_the_source_is_dropped(mesh: TwoNodes) -> None:
    true = entries.ipcache_entry(mesh.client.v4, identity=mesh.client.identity, tunnel=mesh.a.underlay, remote=True)
    other = entries.ipcache_entry(mesh.client.v4, identity=0x010199, tunnel=mesh.a.underlay, remote=True)
    before = drops(mesh.b, DropReason.IDENTITY_MISMATCH)
    mesh.b.write(other)
    try:
        send_to_nowhere(mesh)
        assert drops(mesh.b, DropReason.IDENTITY_MISMATCH) == before + 1
    finally:
        mesh.b.write(true)


def test_a_source_of_the_own_cluster_does_not_come_by_tunnel(mesh: TwoNodes) -> None:
    true = entries.ipcache_entry(mesh.client.v4, identity=mesh.client.identity, tunnel=mesh.a.underlay, remote=True)
    before = drops(mesh.b, DropReason.SOURCE_LOCAL)
    mesh.b.write(entries.ipcache_entry(mesh.client.v4, identity=mesh.client.identity, tunnel=None, remote=False))
    try:
        send_to_nowhere(mesh)
        assert drops(mesh.b, DropReason.SOURCE_LOCAL) == before + 1
    finally:
        mesh.b.write(true)


def test_an_unknown_source_is_counted_and_delivered(mesh: TwoNodes) -> None:
    entry = entries.ipcache_entry(mesh.client.v4, identity=mesh.client.identity, tunnel=mesh.a.underlay, remote=True)
    fallback = cidr(mesh.b, "10.1.0.0/24", mesh.a.underlay)
    before = drops(mesh.b, DropReason.UNVERIFIED)
    mesh.b.remove(entry)
    try:
        with mesh.server.bound(socket.AF_INET) as server:
            client, accepted, peer = connected(mesh.client, server)
            with client, accepted:
                assert peer == str(mesh.client.v4)
    finally:
        mesh.b.write(entry)
        mesh.b.remove(fallback)
    assert drops(mesh.b, DropReason.UNVERIFIED) > before


def test_a_cidr_leads_to_its_node_and_an_unknown_pod_there_is_counted(mesh: TwoNodes) -> None:
    entry = cidr(mesh.a, "10.2.0.0/24", mesh.b.underlay)
    before = drops(mesh.b, DropReason.NO_ENDPOINT)
    try:
        with mesh.client.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"?", ("10.2.0.77", 9))
        assert drops(mesh.b, DropReason.NO_ENDPOINT) == before + 1
    finally:
        mesh.a.remove(entry)


def test_what_is_not_for_the_mesh_stays_with_the_cni(mesh: TwoNodes) -> None:
    """Pod to pod of one node, and pod to another node's address: routed and masqueraded as before."""
    with mesh.bystander.bound(socket.AF_INET) as server, capturing(mesh.switch, "to-a") as capture:
        client, accepted, _ = connected(mesh.client, server)
        client.close()
        accepted.close()
        outside = mesh.b.namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
        with outside:
            outside.bind((str(mesh.b.underlay), 0))
            outside.listen()
            client, accepted, peer = connected(mesh.client, outside)
            client.close()
            accepted.close()
        assert peer == str(mesh.a.underlay)
        assert inner(capture.seen()) == []


def test_a_packet_at_the_end_of_its_life_is_answered_by_the_node(mesh: TwoNodes) -> None:
    with (
        mesh.client.namespace.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as answers,
        mesh.client.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
        mesh.a.namespace.ip("route", "add", "10.2.0.0/24", "dev", "eth0")
        try:
            client.sendto(b"trace", (str(mesh.server.v4), 33434))
            assert answers.recv(1000)[20] == 11
        finally:
            mesh.a.namespace.ip("route", "del", "10.2.0.0/24", "dev", "eth0")


def send_to_nowhere(mesh: TwoNodes) -> None:
    """One datagram from the client to the server; returns when it has passed the underlay."""
    with (
        capturing(mesh.b.namespace, "md_vxlan") as capture,
        mesh.client.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.sendto(b"nowhere", (str(mesh.server.v4), 9))
        capture.wait(lambda frame: b"nowhere" in frame)
