"""Flows that are translated per packet: a pod that is its own backend, and ports that are used again."""

import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from datapath.entries import backend_entry, service_entries
from datapath.layout import DropReason
from datapath.servicelayout import Nat, NatDirection, NatKey
from tests.support.enforced import police, release
from tests.support.testrun import frame
from tests.support.twonodes import Node, TwoNodes, add_service, two_nodes

pytestmark = pytest.mark.root

TCP, UDP, SCTP = socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_SCTP
V4, V6 = socket.AF_INET, socket.AF_INET6
STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
PORT = 80
TAG = 4  # offset of the verification tag in SCTP's header


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path_factory.mktemp("mesh")) as made:
        yield made


def read(stream: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = stream.recv(length - len(data))
        assert part
        data += part
    return data


@pytest.mark.parametrize("policed", [False, True], ids=["no policy", "all closed"])
@pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
@pytest.mark.parametrize("kind", [STREAM, DATAGRAM], ids=["tcp", "udp"])
def test_a_pod_reaches_itself_through_the_service(mesh: TwoNodes, kind: int, family: int, policed: bool) -> None:
    """As it does by the socket hooks; it sees the frontend as the client. What it says to others is not touched."""
    frontend, protocol = ("30.2.1.10" if family == V4 else "fd00:30::30"), (TCP if kind == STREAM else UDP)
    if policed:
        police(mesh.a, mesh.client)
    try:
        with mesh.client.bound(family, kind) as server, mesh.client.namespace.socket(family, kind) as client:
            add_service(mesh.a, frontend, PORT, protocol, server.getsockname()[:2])
            client.connect((frontend, PORT))
            answered = answer_streams if kind == STREAM else answer_datagrams
            assert answered(server, client) == frontend
    finally:
        release(mesh.a, mesh.client)
    with mesh.bystander.bound(family, kind) as other, mesh.client.namespace.socket(family, kind) as client:
        add_service(mesh.a, frontend, PORT, protocol, other.getsockname()[:2])
        client.connect((frontend, PORT))
        client.send(b"ask")
        if kind == STREAM:
            with other.accept()[0] as accepted:
                assert accepted.recv(10) == b"ask"
        else:
            assert other.recv(10) == b"ask"


def answer_streams(server: socket.socket, client: socket.socket) -> str:
    """Both say a lot, several segments and offloaded ones too; who the server takes the client for."""
    accepted, peer = server.accept()
    with accepted:
        for payload in (b"once", bytes(range(256)) * 400):
            client.sendall(payload)
            assert read(accepted, len(payload)) == payload
            accepted.sendall(payload)
            assert read(client, len(payload)) == payload
    return str(peer[0])


def answer_datagrams(server: socket.socket, client: socket.socket) -> str:
    for payload in (b"once", bytes(1000)):
        client.send(payload)
        data, peer = server.recvfrom(2000)
        assert data == payload
        server.sendto(data, peer)
        assert client.recv(2000) == payload
    return str(peer[0])


def test_who_pretends_to_be_the_backend_does_not_reach_it_as_itself(mesh: TwoNodes) -> None:
    """A pod sends to the frontend with the backend's address as its source: only an interface's own pod loops."""
    with (
        mesh.bystander.bound(V4, DATAGRAM) as server,
        mesh.client.namespace.socket(V4, socket.SOCK_RAW, socket.IPPROTO_RAW) as client,
    ):
        add_service(mesh.a, "30.2.1.11", PORT, UDP, server.getsockname())
        packet = frame(server.getsockname()[0], "30.2.1.11", "UDP", PORT)[14:]
        before = mesh.a.maps.drops()[DropReason.SPOOFED]
        client.sendto(packet, ("30.2.1.11", 0))
        assert mesh.a.maps.drops()[DropReason.SPOOFED] == before + 1


@pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
def test_a_new_connection_from_the_same_port_leaves_the_backend_that_is_not_behind_the_frontend_any_more(
    mesh: TwoNodes, family: int
) -> None:
    """Whether that is still behind another one, or is gone and its number was given to another backend."""
    frontend, port = ("30.2.1.12" if family == V4 else "fd00:30::32"), 0
    address = ip_address(frontend)
    with mesh.bystander.bound(family, STREAM) as first, mesh.bystander.bound(family, STREAM) as second:
        steps = [({1001: first}, [1001], first), ({1002: second}, [1002], second), ({1002: first}, [1002], first)]
        for numbers, slots, expected in steps:
            for number, server in numbers.items():
                host, at = server.getsockname()[:2]
                mesh.a.write(backend_entry(number, ip_address(host), at, TCP))
            mesh.a.write(*service_entries(address, PORT, TCP, slots))
            with mesh.client.namespace.socket(family, STREAM) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no TIME_WAIT
                client.bind((mesh.client.address(family), port))
                client.connect((frontend, PORT))
                port = client.getsockname()[1]
                expected.settimeout(5)
                with expected.accept()[0] as accepted:
                    client.send(b"ask")
                    assert accepted.recv(10) == b"ask"


@pytest.mark.parametrize("protocol", ["TCP", "SCTP"])
def test_a_first_packet_that_is_sent_again_goes_to_the_same_backend_and_another_connection_chooses(
    mesh: TwoNodes, protocol: str
) -> None:
    number = TCP if protocol == "TCP" else SCTP
    frontend, backends = "30.2.1.13", [(f"10.2.0.{n}", PORT) for n in range(1, 9)]
    add_service(mesh.a, frontend, PORT, number, *backends)
    with mesh.client.namespace.socket(V4, socket.SOCK_RAW, socket.IPPROTO_RAW) as client:

        def sent(first: int) -> bytes:
            client.sendto(opening(str(mesh.client.v4), frontend, protocol, first), (frontend, 0))
            return backend_of(mesh.a, frontend, number)

        assert len({sent(7) for _ in range(20)}) == 1
        assert len({sent(first) for first in range(1000, 1040)}) > 1  # (1/8)^39 would be chance


def test_ports_that_are_used_again_for_the_same_backend_write_over_their_flow(mesh: TwoNodes) -> None:
    frontend = "30.2.1.14"
    add_service(mesh.a, frontend, PORT, TCP, ("10.2.0.1", PORT))
    with mesh.client.namespace.socket(V4, socket.SOCK_RAW, socket.IPPROTO_RAW) as client:

        def sent(first: int) -> Nat:
            client.sendto(opening(str(mesh.client.v4), frontend, "TCP", first), (frontend, 0))
            return flow_of(mesh.a, frontend, TCP)

        flows = [sent(first) for first in (7, 7, 8)]
    assert [flow.first == flows[0].first for flow in flows] == [True, True, False]
    assert len({(bytes(flow.address), flow.port, flow.backend) for flow in flows}) == 1


def opening(source: str, destination: str, protocol: str, first: int) -> bytes:
    """The IPv4 packet that begins a connection with this number."""
    packet = bytearray(frame(source, destination, protocol, PORT, source_port=4711)[14:])
    packet[9] = TCP if protocol == "TCP" else SCTP
    at = 20
    if protocol == "TCP":
        packet[at + 4 : at + 8] = first.to_bytes(4, "big")
    else:
        packet[at + TAG : at + TAG + 4] = bytes(4)
        packet[at + 16 : at + 20] = first.to_bytes(4, "big")
    return bytes(packet)


def backend_of(node: Node, frontend: str, protocol: int) -> bytes:
    """Where the flow to the frontend goes by md_nat."""
    return bytes(flow_of(node, frontend, protocol).address)


def flow_of(node: Node, frontend: str, protocol: int) -> Nat:
    """The one flow to the frontend."""
    found = [
        Nat.from_buffer_copy(value)
        for key, value in node.maps.dump("md_nat").items()
        if (flow := NatKey.from_buffer_copy(key)).direction == NatDirection.FORWARD
        and bytes(flow.destination)[:4] == ip_address(frontend).packed
        and flow.protocol == protocol
    ]
    assert len(found) == 1
    return found[0]
