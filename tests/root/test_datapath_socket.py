"""Load balancing at the socket: TCP, UDP, IPv4, IPv6 and IPv4 through IPv6 sockets, inside the node's cgroup."""

import errno
import os
import socket
import time
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from datapath import bpf
from datapath.entries import Entry, backend_entry, frontend_entry, maglev_entry, member_entry, service_entries
from datapath.foreign import foreign_programs
from datapath.hooks import HOOKS
from datapath.layout import DropReason
from datapath.ringbuf import Ring, parse_event
from meshd.daemon.backends import Endpoint
from meshd.daemon.frontends import Published, Wanted, compute_entries
from meshd.daemon.podnamespaces import find_namespaces
from meshd.daemon.underlay import netns_cookie
from tests.support.netns import joined
from tests.support.sockprog import load_program
from tests.support.twonodes import TwoNodes, add_service, pending, two_nodes

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
    with mesh.server.bound(server_family, socket.SOCK_STREAM) as server:
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
        mesh.server.bound(server_family, socket.SOCK_DGRAM) as server,
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
    servers = [mesh.server.bound(socket.AF_INET) for _ in range(4)]
    hits = dict.fromkeys((server.getsockname()[1] for server in servers), 0)
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


@pytest.mark.parametrize(("family", "server_family", "prefix"), CASES)
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_a_frontend_without_backend_refuses_at_once_and_it_is_told(
    mesh: TwoNodes, kind: int, family: int, server_family: int, prefix: str
) -> None:
    protocol = TCP if kind == socket.SOCK_STREAM else UDP
    frontend = "30.1.1.4" if server_family == socket.AF_INET else "fd00:30::14"
    add_service(mesh.a, frontend, PORT, protocol)
    before, ring = mesh.a.maps.drops()[DropReason.NO_BACKEND], Ring(mesh.a.loaded.folder)
    try:
        list(ring.read(1_000_000))
        with opened(mesh, family, kind) as client, pytest.raises(ConnectionRefusedError):
            client.connect((prefix + frontend, PORT))
        if kind == socket.SOCK_DGRAM:
            with opened(mesh, family, kind) as client, pytest.raises(ConnectionRefusedError):
                client.sendto(b"x", (prefix + frontend, PORT))
        events = [parse_event(record) for record in ring.read(100)]
    finally:
        ring.close()
    assert mesh.a.maps.drops()[DropReason.NO_BACKEND] == before + len(events)
    assert len(events) == (1 if kind == socket.SOCK_STREAM else 2)
    for event in events:
        assert (event.reason, event.direction) == (DropReason.NO_BACKEND, 1)
        assert (str(event.destination), event.port, event.protocol) == (frontend, PORT, protocol)
        assert event.netns == mesh.client.namespace.call(netns_cookie)


def test_a_flood_of_refusals_is_told_in_part_and_counted_whole(mesh: TwoNodes) -> None:
    add_service(mesh.a, "30.1.1.15", PORT, UDP)
    before, ring = mesh.a.maps.drops(), Ring(mesh.a.loaded.folder)
    try:
        list(ring.read(1_000_000))
        with opened(mesh, socket.AF_INET, socket.SOCK_DGRAM) as client:
            for _ in range(2_000):
                assert client.connect_ex(("30.1.1.15", PORT)) == errno.ECONNREFUSED
        told = len(list(ring.read(1_000_000)))
    finally:
        ring.close()
    after = mesh.a.maps.drops()
    assert after[DropReason.NO_BACKEND] - before[DropReason.NO_BACKEND] == 2_000
    assert told + after[DropReason.EVENT_SUPPRESSED] - before[DropReason.EVENT_SUPPRESSED] == 2_000


def test_who_was_refused_is_found_by_the_network_namespace(mesh: TwoNodes) -> None:
    found = find_namespaces()
    for pod in (mesh.client, mesh.bystander, mesh.server):
        assert {pod.v4, pod.v6} <= found[pod.namespace.call(netns_cookie)]
    assert netns_cookie() in found


def test_other_destinations_and_other_cgroups_are_untouched(mesh: TwoNodes) -> None:
    """The same address on another port or protocol is not ours. A socket outside the node's cgroup is not touched, its
    packets are (test_datapath_service_ct.py): so UDP to a TCP frontend goes nowhere.
    """
    with mesh.server.bound(socket.AF_INET) as server:
        host, port = server.getsockname()
        add_service(mesh.a, host, port + 1 if port < 65535 else 1, TCP, (host, port))
        with opened(mesh, socket.AF_INET, socket.SOCK_STREAM) as client:
            client.connect((host, port))
            assert client.getpeername() == (host, port)
        add_service(mesh.a, "30.1.1.5", PORT, TCP, (host, port))
        with mesh.client.namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as outsider:
            outsider.connect(("30.1.1.5", PORT))
            accepted, _ = server.accept()
            accepted.close()
        with opened(mesh, socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(("30.1.1.5", PORT))
            assert client.getpeername() == ("30.1.1.5", PORT)


def test_a_pod_reaches_itself_through_the_service(mesh: TwoNodes) -> None:
    with mesh.client.bound(socket.AF_INET) as server:
        add_service(mesh.a, "30.1.1.7", PORT, TCP, server.getsockname())
        with opened(mesh, socket.AF_INET, socket.SOCK_STREAM) as client:
            client.connect(("30.1.1.7", PORT))
            accepted, peer = server.accept()
            accepted.close()
            assert peer[0] == str(mesh.client.v4)


def test_a_socket_of_the_node_itself_is_left_to_kube_proxy(mesh: TwoNodes) -> None:
    """In the same cgroup, but in the node's own namespace: nobody there could tunnel what goes to a remote backend."""
    with mesh.server.bound(socket.AF_INET) as server:
        add_service(mesh.a, "30.1.1.6", PORT, TCP, server.getsockname())
        with joined(mesh.a.cgroup):
            own = mesh.a.namespace.socket(socket.AF_INET, socket.SOCK_STREAM, timeout=0.2)
        with own, pytest.raises(OSError, match=r"timed out|unreachable|No route"):
            own.connect(("30.1.1.6", PORT))
        with opened(mesh, socket.AF_INET, socket.SOCK_STREAM) as pod:
            pod.connect(("30.1.1.6", PORT))


@pytest.fixture
def servers(mesh: TwoNodes) -> Iterator[list[socket.socket]]:
    made = [mesh.server.bound(socket.AF_INET) for _ in range(4)]
    yield made
    for server in made:
        server.close()


def hits(mesh: TwoNodes, frontend: str, servers: list[socket.socket], count: int) -> list[int]:
    """How many of `count` connections of the client pod each server got."""
    clients = []
    seen = []
    try:
        for _ in range(count):
            clients.append(opened(mesh, socket.AF_INET, socket.SOCK_STREAM))
            clients[-1].connect((frontend, PORT))
        for server in servers:
            accepted = 0
            server.settimeout(0)
            while True:
                try:
                    clients.append(server.accept()[0])
                except BlockingIOError:
                    break
                accepted += 1
            seen.append(accepted)
    finally:
        for each in clients:
            each.close()
    return seen


def published(mesh: TwoNodes, frontend: str, wanted: Wanted, first: int = 1000) -> Published:
    """A service as the daemon computes it, written."""
    endpoints = wanted.place((), ())
    numbers = range(first, first + len(endpoints))
    made = compute_entries((ip_address(frontend), PORT, TCP), wanted, endpoints, numbers, 251)
    mesh.a.write(*(backend_entry(number, *each) for number, each in zip(numbers, endpoints, strict=True)))
    for (map, key), value in made.changes(None).items():
        assert value is not None
        mesh.a.write(Entry(map, key, value))
    return made


def endpoint(server: socket.socket) -> Endpoint:
    address, port = server.getsockname()
    return ip_address(address), port, TCP


def test_weights_are_shares_of_new_connections(mesh: TwoNodes, servers: list[socket.socket]) -> None:
    weights = dict(zip(map(endpoint, servers), (5, 3, 2, 2), strict=True))
    for frontend, wanted in (("30.1.2.1", Wanted(weights)), ("30.1.2.2", Wanted(weights, maglev=True))):
        published(mesh, frontend, wanted)
        seen = hits(mesh, frontend, servers, 600)
        assert sum(seen) == 600
        for count, weight in zip(seen, (5, 3, 2, 2), strict=True):
            share = weight / 12
            assert abs(count / 600 - share) < 5 * (share * (1 - share) / 600) ** 0.5, seen


def test_a_client_stays_with_its_backend_until_that_leaves_or_the_time_is_out(
    mesh: TwoNodes, servers: list[socket.socket]
) -> None:
    wanted = Wanted(dict.fromkeys(map(endpoint, servers), 1), session_affinity_timeout_s=1000)
    made = published(mesh, "30.1.2.3", wanted)
    first = hits(mesh, "30.1.2.3", servers, 40)
    assert sorted(first) == [0, 0, 0, 40]
    assert hits(mesh, "30.1.2.3", servers, 5)[first.index(40)] == 5
    # The backend leaves the frontend, though it still stands behind others: all go to another one.
    member = member_entry(ip_address("30.1.2.3"), PORT, TCP, 1000 + first.index(40))
    mesh.a.remove(member)
    kept = [slot.backend_id for n, slot in enumerate(made.slots) if n != first.index(40)]
    mesh.a.write(*service_entries(ip_address("30.1.2.3"), PORT, TCP, kept)[:-1])
    mesh.a.write(frontend_entry(ip_address("30.1.2.3"), PORT, TCP, count=3, session_affinity_timeout_s=1000))
    second = hits(mesh, "30.1.2.3", servers, 40)
    assert sorted(second) == [0, 0, 0, 40]
    assert second != first
    # With the shortest time-out the client is forgotten after a second: eight waits that end with one backend each.
    mesh.a.write(frontend_entry(ip_address("30.1.2.3"), PORT, TCP, count=3, session_affinity_timeout_s=1))
    seen = {second.index(40)}
    for _ in range(8):
        time.sleep(1.01)  # what is tested is time
        seen.add(hits(mesh, "30.1.2.3", servers, 1).index(1))
        if len(seen) > 1:
            return
    raise AssertionError("the client never went to another backend")


def test_maglev_keeps_the_datagrams_of_one_socket_together(mesh: TwoNodes) -> None:
    servers = [mesh.server.bound(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(4)]
    endpoints = [(ip_address(s.getsockname()[0]), s.getsockname()[1], UDP) for s in servers]
    key = (ip_address("30.1.2.4"), PORT, UDP)
    numbers = list(range(2000, 2004))
    made = compute_entries(key, Wanted(dict.fromkeys(endpoints, 1), maglev=True), tuple(endpoints), numbers, 251)
    mesh.a.write(*(backend_entry(n, *each) for n, each in zip(numbers, endpoints, strict=True)))
    for (map, at), value in made.changes(None).items():
        mesh.a.write(Entry(map, at, value or b""))
    used = set()
    try:
        for _ in range(8):
            with opened(mesh, socket.AF_INET, socket.SOCK_DGRAM) as client:
                for _ in range(10):
                    client.sendto(b"ask", ("30.1.2.4", PORT))
                got = [pending(server) for server in servers]
                assert sorted(got) == [0, 0, 0, 10]
                used.add(got.index(10))
    finally:
        for server in servers:
            server.close()
    assert len(used) > 1
    table = mesh.a.maps.dump("md_maglev")
    assert [len(value) for value in table.values()].count(251 * 4) == len(table)
    mesh.a.remove(maglev_entry(*key, b""))


def test_another_load_balancer_on_the_cgroup_or_above_it_is_named(mesh: TwoNodes) -> None:
    links = mesh.a.loaded.folder / "links"
    assert foreign_programs(links, mesh.a.cgroup) == ()
    with bpf.opened(mesh.b.loaded.programs.path("connect4")) as program:
        cgroup = os.open(mesh.a.cgroup, os.O_RDONLY)
        link = bpf.create_cgroup_link(program, cgroup, 10)
        found = foreign_programs(links, mesh.a.cgroup)
        os.close(link)
        os.close(cgroup)
    assert found == (f"another socket program (connect4) is attached to connect4 of {mesh.a.cgroup} too",)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cil_sock4_connect", "Cilium's socket load balancer (kube-proxy replacement) (cil_sock4_conne)"),
        ("cali_ctlb_v4", "Calico's eBPF dataplane (cali_ctlb_v4)"),
    ],
)
def test_the_well_known_ones_are_named(mesh: TwoNodes, name: str, expected: str) -> None:
    program = load_program(name[:15], HOOKS["connect4"])
    cgroup = os.open(mesh.a.cgroup, os.O_RDONLY)
    try:
        link = bpf.create_cgroup_link(program, cgroup, HOOKS["connect4"])
        found = foreign_programs(mesh.a.loaded.folder / "links", mesh.a.cgroup)
        os.close(link)
    finally:
        os.close(cgroup)
        os.close(program)
    assert found == (f"{expected} is attached to connect4 of {mesh.a.cgroup} too",)
    assert foreign_programs(mesh.a.loaded.folder / "links", mesh.a.cgroup) == ()


def test_a_connected_udp_socket_to_a_backend_that_is_gone_can_be_aborted(mesh: TwoNodes) -> None:
    """What docs/global-services.md advises."""
    with (
        mesh.server.bound(socket.AF_INET, socket.SOCK_DGRAM) as first,
        mesh.server.bound(socket.AF_INET, socket.SOCK_DGRAM) as other,
    ):
        add_service(mesh.a, "30.1.1.8", PORT, UDP, first.getsockname())
        with opened(mesh, socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(("30.1.1.8", PORT))
            add_service(mesh.a, "30.1.1.8", PORT, UDP, other.getsockname())
            client.send(b"1")
            assert first.recv(10) == b"1"  # the connected socket stays with its backend
            mesh.client.namespace.run("ss", "-K", "-u", "dst", str(mesh.server.v4))
            with pytest.raises(ConnectionAbortedError):
                client.recv(10)
            client.connect(("30.1.1.8", PORT))
            client.send(b"2")
            assert other.recv(10) == b"2"
