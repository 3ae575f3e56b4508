"""Load balancing at the socket: TCP, UDP, IPv4, IPv6 and IPv4 through IPv6 sockets, inside the node's cgroup."""

import socket
from collections.abc import Iterator

import pytest

from datapath.layout import DropReason
from tests.support.netns import joined
from tests.support.twonodes import TwoNodes, add_service, two_nodes

pytestmark = pytest.mark.root

TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
PORT = 80
FRONTENDS = {"tcp4": "30.1.1.1", "tcp6": "fd00:30::1", "udp4": "30.1.1.2", "udp6": "fd00:30::2"}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path_factory.mktemp("mesh")) as made:
        yield made


def opened(mesh: TwoNodes, family: int, kind: int) -> socket.socket:
    """A socket of the client pod: its namespace and its node's cgroup."""
    with joined(mesh.a.cgroup):
        return mesh.client.namespace.socket(family, kind)


def bound(mesh: TwoNodes, family: int, kind: int) -> socket.socket:
    pod = mesh.server
    server = pod.namespace.socket(family, kind)
    server.bind((str(pod.v4 if family == socket.AF_INET else pod.v6), 0))
    return server


CASES = [
    pytest.param(socket.AF_INET, socket.AF_INET, "", id="v4"),
    pytest.param(socket.AF_INET6, socket.AF_INET6, "", id="v6"),
    pytest.param(socket.AF_INET6, socket.AF_INET, "::ffff:", id="v4-mapped"),
]


@pytest.mark.parametrize(("client_family", "server_family", "prefix"), CASES)
def test_tcp_connects_to_the_backend_and_sees_the_frontend(
    mesh: TwoNodes, client_family: int, server_family: int, prefix: str
) -> None:
    frontend = FRONTENDS["tcp4" if server_family == socket.AF_INET else "tcp6"]
    with bound(mesh, server_family, socket.SOCK_STREAM) as server:
        server.listen()
        add_service(mesh.a, frontend, PORT, TCP, server.getsockname()[:2])
        with opened(mesh, client_family, socket.SOCK_STREAM) as client:
            client.connect((prefix + frontend, PORT))
            accepted, peer = server.accept()
            accepted.close()
            assert client.getpeername()[:2] == (prefix + frontend, PORT)
    source = mesh.client.v4 if server_family == socket.AF_INET else mesh.client.v6
    assert peer[0] == str(source)


@pytest.mark.parametrize("connect", [False, True], ids=["unconnected", "connected"])
@pytest.mark.parametrize(("client_family", "server_family", "prefix"), CASES)
def test_udp_reaches_the_backend_and_the_answer_comes_from_the_frontend(
    mesh: TwoNodes, client_family: int, server_family: int, prefix: str, connect: bool
) -> None:
    frontend = FRONTENDS["udp4" if server_family == socket.AF_INET else "udp6"]
    with (
        bound(mesh, server_family, socket.SOCK_DGRAM) as server,
        opened(mesh, client_family, socket.SOCK_DGRAM) as client,
    ):
        add_service(mesh.a, frontend, PORT, UDP, server.getsockname()[:2])
        if connect:
            client.connect((prefix + frontend, PORT))
            assert client.getpeername()[:2] == (prefix + frontend, PORT)
        for _ in range(2):
            if connect:
                client.send(b"ask")
            else:
                client.sendto(b"ask", (prefix + frontend, PORT))
            data, peer = server.recvfrom(100)
            server.sendto(data + b"ed", peer)
            answer, sender = client.recvfrom(100)
            assert (answer, sender[:2]) == (b"asked", (prefix + frontend, PORT))


def test_new_connections_spread_over_all_backends(mesh: TwoNodes) -> None:
    servers = [bound(mesh, socket.AF_INET, socket.SOCK_STREAM) for _ in range(4)]
    hits = dict.fromkeys((server.getsockname()[1] for server in servers), 0)
    for server in servers:
        server.listen(200)
    add_service(mesh.a, "30.1.1.3", PORT, TCP, *(server.getsockname()[:2] for server in servers))
    clients = []
    try:
        for _ in range(200):
            clients.append(opened(mesh, socket.AF_INET, socket.SOCK_STREAM))
            clients[-1].connect(("30.1.1.3", PORT))
        for server in servers:
            server.setblocking(False)
            while True:
                try:
                    accepted, _ = server.accept()
                except BlockingIOError:
                    break
                clients.append(accepted)
                hits[server.getsockname()[1]] += 1
    finally:
        for each in [*clients, *servers]:
            each.close()
    assert sum(hits.values()) == 200
    # 50 expected each; 15 is six standard deviations away.
    assert min(hits.values()) > 15, hits


def test_a_frontend_without_backend_refuses_at_once(mesh: TwoNodes) -> None:
    before = mesh.a.maps.drops()[DropReason.NO_BACKEND]
    add_service(mesh.a, "30.1.1.4", PORT, TCP)
    with opened(mesh, socket.AF_INET, socket.SOCK_STREAM) as client, pytest.raises(ConnectionRefusedError):
        client.connect(("30.1.1.4", PORT))
    assert mesh.a.maps.drops()[DropReason.NO_BACKEND] == before + 1


def test_other_destinations_and_other_cgroups_are_untouched(mesh: TwoNodes) -> None:
    """The same address on another port or protocol is not ours, nor is a socket outside the node's cgroup."""
    with bound(mesh, socket.AF_INET, socket.SOCK_STREAM) as server:
        server.listen()
        host, port = server.getsockname()
        add_service(mesh.a, host, port + 1 if port < 65535 else 1, TCP, (host, port))
        with opened(mesh, socket.AF_INET, socket.SOCK_STREAM) as client:
            client.connect((host, port))
            assert client.getpeername() == (host, port)
        add_service(mesh.a, "30.1.1.5", PORT, TCP, (host, port))
        outsider = mesh.client.namespace.socket(socket.AF_INET, socket.SOCK_STREAM, timeout=0.2)
        with outsider, pytest.raises(OSError, match=r"timed out|unreachable|No route"):
            outsider.connect(("30.1.1.5", PORT))


def test_a_socket_of_the_node_itself_is_left_to_kube_proxy(mesh: TwoNodes) -> None:
    """In the same cgroup, but in the node's own namespace: nobody there could tunnel what goes to a remote backend."""
    with bound(mesh, socket.AF_INET, socket.SOCK_STREAM) as server:
        server.listen()
        add_service(mesh.a, "30.1.1.6", PORT, TCP, server.getsockname())
        with joined(mesh.a.cgroup):
            own = mesh.a.namespace.socket(socket.AF_INET, socket.SOCK_STREAM, timeout=0.2)
        with own, pytest.raises(OSError, match=r"timed out|unreachable|No route"):
            own.connect(("30.1.1.6", PORT))
        with opened(mesh, socket.AF_INET, socket.SOCK_STREAM) as pod:
            pod.connect(("30.1.1.6", PORT))
