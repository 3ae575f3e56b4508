"""Load balancing per packet: the client's sockets are in the pod, but not in the node's cgroup, so no hook sees them.
The nodes masquerade everything that the stack forwards, as many CNIs do.
"""

import socket
import struct
import sys
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from datapath.enforcement import enforce
from datapath.entries import Entry, backend_entry, endpoint_entry, frontend_entry
from datapath.layout import DropReason
from datapath.policing import policy_entry, subject_entry
from datapath.policylayout import Iface
from identity.numbering import Reserved
from meshd.daemon.frontends import Wanted, compute_entries
from tests.support.twonodes import Node, Pod, TwoNodes, add_service, pending, two_nodes

pytestmark = pytest.mark.root

TCP, UDP, SCTP = socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_SCTP
V4, V6 = socket.AF_INET, socket.AF_INET6
STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
PORT = 80
INIT = b"\x01\x00\x00\x14" + b"name" + bytes(12)  # SCTP's first chunk, without its parameters
FRONTEND: dict[int, str] = {V4: "30.2.1.1", V6: "fd00:30::21"}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path_factory.mktemp("mesh")) as made:
        yield made


WHERE = [
    pytest.param(lambda mesh: mesh.server, True, id="remote"),
    pytest.param(lambda mesh: mesh.bystander, False, id="same-node"),
]
Choose = Callable[[TwoNodes], Pod]


@pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
@pytest.mark.parametrize(("choose", "remote"), WHERE)
def test_tcp_reaches_the_backend_and_the_answers_come_from_the_frontend(
    mesh: TwoNodes, choose: Choose, remote: bool, family: int
) -> None:
    with choose(mesh).bound(family, STREAM) as server, mesh.client.namespace.socket(family, STREAM) as client:
        add_service(mesh.a, FRONTEND[family], PORT, TCP, server.getsockname()[:2])
        client.connect((FRONTEND[family], PORT))
        accepted, peer = server.accept()
        with accepted:
            payload = bytes(range(256)) * 400  # several segments, offloaded ones too
            client.sendall(payload)
            assert _read(accepted, len(payload)) == payload
            accepted.sendall(payload)
            assert _read(client, len(payload)) == payload
        assert client.getpeername()[:2] == (FRONTEND[family], PORT)
    if remote or family == V6:  # what the stack forwards is masqueraded, IPv4 only
        assert peer[0] == mesh.client.address(family)


@pytest.mark.parametrize("connect", [False, True], ids=["unconnected", "connected"])
@pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
@pytest.mark.parametrize(("choose", "remote"), WHERE)
def test_udp_reaches_the_backend_and_the_answer_comes_from_the_frontend(
    mesh: TwoNodes, choose: Choose, remote: bool, family: int, connect: bool
) -> None:
    with choose(mesh).bound(family, DATAGRAM) as server, mesh.client.namespace.socket(family, DATAGRAM) as client:
        add_service(mesh.a, FRONTEND[family], PORT, UDP, server.getsockname()[:2])
        if connect:
            client.connect((FRONTEND[family], PORT))
        for _ in range(3):
            if connect:
                client.send(b"ask")
            else:
                client.sendto(b"ask", (FRONTEND[family], PORT))
            data, peer = server.recvfrom(100)
            server.sendto(data + b"ed", peer)
            answer, sender = client.recvfrom(100)
            assert (answer, sender[:2]) == (b"asked", (FRONTEND[family], PORT))


@pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
def test_sctp_is_translated_by_address_only(mesh: TwoNodes, family: int) -> None:
    """Crafted packets, as this kernel may have no SCTP: the port, and the checksum that covers no address, stay."""
    backend, frontend = (mesh.server.v4, "30.2.1.2") if family == V4 else (mesh.server.v6, "fd00:30::22")
    client_address = mesh.client.address(family)
    header = 20 if family == V4 else 0  # a raw socket shows the header of IPv4 only
    add_service(mesh.a, frontend, 9999, SCTP, (str(backend), 9999))
    packet = struct.pack("!HHI", 4000, 9999, 0) + b"\x12\x34\x56\x78" + INIT
    answer = struct.pack("!HHI", 9999, 4000, 0) + b"\x12\x34\x56\x78" + b"ack!"
    with (
        mesh.server.namespace.socket(family, socket.SOCK_RAW, SCTP) as server,
        mesh.client.namespace.socket(family, socket.SOCK_RAW, SCTP) as client,
    ):
        client.sendto(packet, (frontend, 0))
        received, source = server.recvfrom(100)
        assert (received[header:], source[0]) == (packet, client_address)
        server.sendto(answer, source)
        received, source = client.recvfrom(100)
        assert (received[header:], source[0]) == (answer, frontend)


def test_connections_spread_and_each_stays_where_it_is_when_the_backends_change(mesh: TwoNodes) -> None:
    servers = [mesh.server.bound(V4, STREAM) for _ in range(3)]
    clients, accepted = [], []
    try:
        add_service(mesh.a, "30.2.1.3", PORT, TCP, *(server.getsockname() for server in servers))
        for _ in range(30):
            clients.append(mesh.client.namespace.socket(V4, STREAM))
            clients[-1].connect(("30.2.1.3", PORT))
        for server in servers:
            accepted.append(_accept_all(server))
        assert sum(map(len, accepted)) == 30
        assert all(accepted)  # (2/3)^30 would be chance
        add_service(mesh.a, "30.2.1.3", PORT, TCP, servers[0].getsockname())
        for client in clients:
            client.sendall(b"x")
        for each in (one for ones in accepted for one in ones):
            each.settimeout(5)
            assert each.recv(1) == b"x"
    finally:
        for each in [*clients, *servers, *(one for ones in accepted for one in ones)]:
            each.close()


def test_udp_leaves_a_backend_that_is_gone(mesh: TwoNodes) -> None:
    with (
        mesh.server.bound(V4, DATAGRAM) as first,
        mesh.server.bound(V4, DATAGRAM) as second,
        mesh.client.namespace.socket(V4, DATAGRAM) as client,
    ):
        client.connect(("30.2.1.4", PORT))
        made = add_service(mesh.a, "30.2.1.4", PORT, UDP, first.getsockname())
        client.send(b"1")
        assert first.recv(10) == b"1"
        mesh.a.write(backend_entry(77, ip_address(second.getsockname()[0]), second.getsockname()[1], UDP))
        published(mesh.a, "30.2.1.4", UDP, [second], number=77)
        client.send(b"2")
        assert first.recv(10) == b"2"  # no longer behind the frontend, but there: its flows go on
        mesh.a.remove(made[0])
        client.send(b"3")
        assert second.recv(10) == b"3"


def test_a_flow_that_was_forgotten_finds_its_backend_again_by_maglev(mesh: TwoNodes) -> None:
    servers = [mesh.server.bound(V4, DATAGRAM) for _ in range(8)]
    try:
        published(mesh.a, "30.2.1.5", UDP, servers, number=500, maglev=True)
        for _ in range(5):
            with mesh.client.namespace.socket(V4, DATAGRAM) as client:
                client.connect(("30.2.1.5", PORT))
                for _ in range(4):
                    client.send(b"x")
                    mesh.a.maps.delete("md_nat", mesh.a.maps.dump("md_nat"))
                assert sorted(map(pending, servers)) == [0] * 7 + [4]
    finally:
        for server in servers:
            server.close()


@pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
def test_a_client_stays_with_its_backend_until_that_leaves(mesh: TwoNodes, family: int) -> None:
    frontend = "30.2.1.9" if family == V4 else "fd00:30::29"
    servers = [mesh.server.bound(family, STREAM) for _ in range(4)]
    clients = []
    try:
        for number in (600, 700):
            mesh.a.maps.delete("md_affm", mesh.a.maps.dump("md_affm"))
            published(mesh.a, frontend, TCP, servers, number=number, affinity_s=100)
            for _ in range(12):
                clients.append(mesh.client.namespace.socket(family, STREAM))
                clients[-1].connect((frontend, PORT))
            accepted = [_accept_all(server) for server in servers]
            clients += [each for ones in accepted for each in ones]
            assert sorted(map(len, accepted)) == [0] * (len(servers) - 1) + [12]
            servers.pop([len(ones) for ones in accepted].index(12)).close()
    finally:
        for each in [*clients, *servers]:
            each.close()


@pytest.mark.parametrize("kind", [STREAM, DATAGRAM], ids=["tcp", "udp"])
def test_ports_that_were_used_through_the_frontend_may_be_used_without_it(mesh: TwoNodes, kind: int) -> None:
    protocol = TCP if kind == STREAM else UDP
    with mesh.server.bound(V4, kind) as server:
        add_service(mesh.a, "30.2.1.7", PORT, protocol, server.getsockname())
        port = 0
        for target in (("30.2.1.7", PORT), server.getsockname(), ("30.2.1.7", PORT)):
            with mesh.client.namespace.socket(V4, kind) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no TIME_WAIT
                client.bind((str(mesh.client.v4), port))
                client.connect(target)
                port = client.getsockname()[1]
                client.send(b"ask")
                if kind == STREAM:
                    accepted, _ = server.accept()
                    with accepted:
                        accepted.send(b"answer")
                        assert client.recv(10) == b"answer"
                else:
                    server.sendto(b"answer", server.recvfrom(10)[1])
                    assert client.recv(10) == b"answer"


def test_without_backend_packets_are_dropped_and_counted(mesh: TwoNodes) -> None:
    mesh.a.write(frontend_entry(ip_address("30.2.1.6"), PORT, UDP, count=0))
    before = mesh.a.maps.drops()[DropReason.NO_BACKEND]
    with mesh.client.namespace.socket(V4, DATAGRAM) as client:
        client.sendto(b"x", ("30.2.1.6", PORT))
    assert mesh.a.maps.drops()[DropReason.NO_BACKEND] == before + 1


def published(
    node: Node,
    frontend: str,
    protocol: int,
    servers: list[socket.socket],
    *,
    number: int,
    maglev: bool = False,
    affinity_s: int = 0,
) -> None:
    """A service as the daemon computes it, written."""
    endpoints = tuple((ip_address(s.getsockname()[0]), s.getsockname()[1], protocol) for s in servers)
    numbers = list(range(number, number + len(endpoints)))
    made = compute_entries(
        (ip_address(frontend), PORT, protocol),
        Wanted(dict.fromkeys(endpoints, 1), maglev=maglev, session_affinity_timeout_s=affinity_s),
        endpoints,
        numbers,
        251,
    )
    node.write(*(backend_entry(n, *each) for n, each in zip(numbers, endpoints, strict=True)))
    for (map, key), value in made.changes(None).items():
        node.write(Entry(map, key, value or b""))


def _read(stream: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = stream.recv(length - len(data))
        assert part
        data += part
    return data


def _accept_all(server: socket.socket) -> list[socket.socket]:
    server.settimeout(0)
    found = []
    while True:
        try:
            found.append(server.accept()[0])
        except BlockingIOError:
            return found


def test_a_policy_judges_the_backend_that_a_frontend_leads_to(mesh: TwoNodes) -> None:
    """The frontend itself is of the world: a policy that allows the world does not allow another cluster's pod."""
    pod, node, egress = mesh.bystander, mesh.a, 1
    found = node.interface(pod.v4)
    entry = endpoint_entry(
        pod.v4, ifindex=found.ifindex, mac=found.mac, host_mac=found.host_mac, identity=pod.identity, policed=True
    )
    node.write(
        policy_entry(pod.identity, egress, Reserved.WORLD, 0, 0, 0, allowed=True),
        subject_entry(pod.identity, revision=1, closed=[egress], audit=False),
        Entry("md_iface", found.ifindex.to_bytes(4, sys.byteorder), bytes(Iface(pod.identity))),
        entry,
    )
    node.namespace.call(lambda: enforce(found.ifindex, node.loaded.programs))
    with mesh.server.bound(V4, STREAM) as server:
        add_service(node, "30.2.1.8", PORT, TCP, server.getsockname())
        with pod.namespace.socket(V4, STREAM, timeout=0.3) as client, pytest.raises(TimeoutError):
            client.connect(("30.2.1.8", PORT))
        assert node.maps.drops()[DropReason.POLICY_CLOSED]
        node.write(policy_entry(pod.identity, egress, mesh.server.identity, 0, 0, 0, allowed=True))
        with pod.namespace.socket(V4, STREAM) as client:
            client.connect(("30.2.1.8", PORT))
            accepted, _ = server.accept()
            with accepted:
                accepted.send(b"answer")
                assert client.recv(10) == b"answer"
