"""Connections under policy in mode direct, and to a service: judged are the ends that the packets have on their way.
The topology is drawn in tests/support/twonodes.py.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import partial
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from datapath import entries
from datapath.attach import attach_network
from datapath.entries import Direct
from datapath.layout import DropReason
from datapath.policing import subject_entry
from policy.ports import TCP, UDP, Block
from tests.support.enforced import EGRESS, INGRESS, allow, police, release
from tests.support.netns import joined
from tests.support.twonodes import CLUSTER_IDS, Node, Pod, TwoNodes, add_service, by_tunnel, two_nodes

pytestmark = pytest.mark.root
V4, V6 = socket.AF_INET, socket.AF_INET6
BOTH = pytest.mark.parametrize("family", [V4, V6], ids=["IPv4", "IPv6"])
SIXES = {"a": IPv6Address("fd00:172::1"), "b": IPv6Address("fd00:172::2")}
DROPPED_S = 0.3
FRONTEND: dict[int, str] = {V4: "30.1.1.1", V6: "fd00:30::1"}
PORT = 80


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path_factory.mktemp("ways")) as nodes:
        for node in (nodes.a, nodes.b):
            node.namespace.ip("addr", "add", f"{SIXES[node.name]}/64", "dev", "eth0", "nodad")
            node.namespace.call(partial(attach_network, underlay(node), node.loaded.programs))
        # As CNIs do: what one pod sends to another keeps its source.
        nodes.a.namespace.run("nft", "insert rule ip cni post ip daddr 10.1.0.0/24 accept")
        yield nodes


@pytest.fixture
def mesh(made: TwoNodes) -> Iterator[TwoNodes]:
    """Without policy at the start and at the end."""
    yield made
    for node in (made.a, made.b):
        for pod in node.pods.values():
            release(node, pod)


def underlay(node: Node) -> int:
    return int(node.namespace.ip("-o", "link", "show", "dev", "eth0").split(":")[0])


@contextmanager
def direct(mesh: TwoNodes) -> Iterator[None]:
    for node, other in ((mesh.a, mesh.b), (mesh.b, mesh.a)):
        device = underlay(node)
        node.write(
            entries.node_entry(
                other.underlay,
                cluster_id=CLUSTER_IDS[other.name],
                remote=True,
                direct4=Direct(device, other.underlay, 1500),
                direct6=Direct(device, SIXES[other.name], 1500),
            )
        )
    try:
        yield
    finally:
        mesh.a.write(by_tunnel(mesh.a, mesh.b))
        mesh.b.write(by_tunnel(mesh.b, mesh.a))


def reaches(
    source: Pod, target: tuple[str, int], family: int, *, cgroup: Path | None = None, within: float = 5.0
) -> bool:
    """A connection is made; a drop is silence."""
    with joined(cgroup) if cgroup else nullcontext():
        client = source.namespace.socket(family, socket.SOCK_STREAM, timeout=within)
    with closing(client):
        try:
            client.connect(target)
        except TimeoutError:
            return False
        return True


@BOTH
def test_direct_packets_are_judged_where_they_leave_and_where_they_arrive(mesh: TwoNodes, family: int) -> None:
    with direct(mesh), mesh.server.bound(family) as server:
        target = server.getsockname()[:2]
        assert reaches(mesh.client, target, family)
        block = Block(TCP, target[1], 24)
        police(mesh.b, mesh.server, allow(mesh.server, INGRESS, mesh.client.identity, block))
        assert reaches(mesh.client, target, family)
        assert not reaches(mesh.bystander, target, family, within=DROPPED_S)
        assert mesh.b.maps.drops()[DropReason.POLICY_CLOSED]
        police(mesh.a, mesh.client, closed=(EGRESS,))
        assert not reaches(mesh.client, target, family, within=DROPPED_S)
        police(mesh.a, mesh.client, allow(mesh.client, EGRESS, mesh.server.identity), closed=(EGRESS,))
        assert reaches(mesh.client, target, family)


@BOTH
def test_connections_under_policy_live_while_the_way_changes(mesh: TwoNodes, family: int) -> None:
    with mesh.server.bound(family) as server:
        police(mesh.b, mesh.server, allow(mesh.server, INGRESS, mesh.client.identity))
        police(mesh.a, mesh.client, allow(mesh.client, EGRESS, mesh.server.identity))
        with closing(mesh.client.namespace.socket(family, socket.SOCK_STREAM)) as client:
            client.connect(server.getsockname()[:2])
            accepted, _ = server.accept()
            with closing(accepted):
                accepted.settimeout(5)
                with direct(mesh):
                    client.sendall(b"direct")
                    assert accepted.recv(16) == b"direct"
                client.sendall(b"tunnel")
                assert accepted.recv(16) == b"tunnel"


Choose = Callable[[TwoNodes], Pod]
BACKENDS: list[tuple[str, Choose]] = [("remote", lambda mesh: mesh.server), ("same-node", lambda mesh: mesh.bystander)]


@BOTH
@pytest.mark.parametrize("by", ["socket", "packet"])
@pytest.mark.parametrize("choose", [c for _, c in BACKENDS], ids=[name for name, _ in BACKENDS])
def test_behind_a_service_the_backend_is_judged(mesh: TwoNodes, choose: Choose, by: str, family: int) -> None:
    """At the client's egress and at the backend's ingress, whether the socket hook or from_pod translated."""
    backend = choose(mesh)
    node = mesh.b if backend is mesh.server else mesh.a
    cgroup = mesh.a.cgroup if by == "socket" else None
    with backend.bound(family) as server:
        port = server.getsockname()[1]
        add_service(mesh.a, FRONTEND[family], PORT, TCP, server.getsockname()[:2])
        target = FRONTEND[family], PORT
        assert reaches(mesh.client, target, family, cgroup=cgroup)
        police(mesh.a, mesh.client, closed=(EGRESS,))
        assert not reaches(mesh.client, target, family, cgroup=cgroup, within=DROPPED_S)
        block = Block(TCP, port, 24)
        police(mesh.a, mesh.client, allow(mesh.client, EGRESS, backend.identity, block), closed=(EGRESS,))
        assert reaches(mesh.client, target, family, cgroup=cgroup)
        wrong = Block(TCP, PORT, 24)
        police(mesh.a, mesh.client, allow(mesh.client, EGRESS, backend.identity, wrong), closed=(EGRESS,))
        assert not reaches(mesh.client, target, family, cgroup=cgroup, within=DROPPED_S), (
            "the port is the backend's too"
        )
        release(mesh.a, mesh.client)
        police(node, backend, closed=(INGRESS,))
        assert not reaches(mesh.client, target, family, cgroup=cgroup, within=DROPPED_S)
        police(node, backend, allow(backend, INGRESS, mesh.client.identity, block), closed=(INGRESS,))
        assert reaches(mesh.client, target, family, cgroup=cgroup)


@BOTH
@pytest.mark.parametrize("way", [direct, lambda mesh: nullcontext()], ids=["direct", "tunnel"])
def test_datagrams_and_their_answers(
    mesh: TwoNodes, way: Callable[[TwoNodes], AbstractContextManager[None]], family: int
) -> None:
    with way(mesh), closing(mesh.server.namespace.socket(family, socket.SOCK_DGRAM, timeout=5)) as server:
        server.bind((mesh.server.address(family), 0))
        block = Block(UDP, server.getsockname()[1], 24)
        police(mesh.b, mesh.server, allow(mesh.server, INGRESS, mesh.client.identity, block))
        for pod, passes in ((mesh.client, True), (mesh.bystander, False)):
            with closing(pod.namespace.socket(family, socket.SOCK_DGRAM, timeout=5)) as client:
                client.connect(server.getsockname()[:2])
                client.send(b"ask")
                if not passes:
                    server.settimeout(DROPPED_S)
                    with pytest.raises(TimeoutError):
                        server.recvfrom(16)
                    continue
                data, sender = server.recvfrom(16)
                server.sendto(data + b"ed", sender)
                assert client.recv(16) == b"asked", "nothing else lets the closed pod send"


@BOTH
def test_a_pod_without_an_interface_of_ours_is_judged_where_its_packets_come_from_the_tunnel(
    mesh: TwoNodes, family: int
) -> None:
    target = mesh.server.v4 if family == V4 else mesh.server.v6
    found = mesh.b.interface(target)
    endpoint = entries.endpoint_entry(
        target, ifindex=found.ifindex, mac=found.mac, host_mac=found.host_mac, identity=mesh.server.identity
    )
    key = mesh.server.identity
    mesh.b.remove(endpoint)
    try:
        with closing(mesh.server.namespace.socket(family, socket.SOCK_DGRAM)) as server:
            server.bind((str(target), 0))
            port = server.getsockname()[1]
            welcome = allow(mesh.server, INGRESS, mesh.client.identity, Block(UDP, port, 24))
            mesh.b.write(welcome, subject_entry(key, revision=1, closed=[INGRESS], audit=False))
            assert hears(server, mesh.client), "by the stack"
            assert not hears(server, mesh.bystander)
            mesh.b.write(subject_entry(key, revision=1, closed=[INGRESS], audit=False, shut=[INGRESS]))
            assert not hears(server, mesh.client)
            mesh.b.write(subject_entry(key, revision=1, closed=[INGRESS], audit=True))
            assert hears(server, mesh.bystander)
            mesh.b.remove(welcome)
    finally:
        mesh.b.write(endpoint)


def hears(server: socket.socket, sender: Pod) -> bool:
    with closing(sender.namespace.socket(server.family, socket.SOCK_DGRAM)) as client:
        before = server.gettimeout()
        server.settimeout(DROPPED_S)
        client.sendto(b"word", server.getsockname()[:2])
        try:
            return server.recv(16) == b"word"
        except TimeoutError:
            return False
        finally:
            server.settimeout(before)
