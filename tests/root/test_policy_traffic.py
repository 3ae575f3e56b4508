"""Connections between pods under policy, by tunnel and by the stack. Topology: tests/support/twonodes.py."""

import errno
import socket
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_network

import pytest

from datapath.layout import DropReason
from datapath.policing import outside_entry
from policy.cidrs import FIRST as CIDR_NUMBER
from policy.ports import TCP, Block
from tests.support.enforced import EGRESS, INGRESS, allow, police, release
from tests.support.twonodes import Pod, TwoNodes, add_service, two_nodes

pytestmark = pytest.mark.root
BOTH = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path_factory.mktemp("policed")) as nodes:
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


def reaches(source: Pod, server: socket.socket, target: tuple[str, int] | None = None) -> bool:
    """A connection is made and echoes; a drop is silence."""
    with closing(source.namespace.socket(server.family, socket.SOCK_STREAM, timeout=0.7)) as client:
        try:
            client.connect(target or server.getsockname()[:2])
        except TimeoutError:
            return False
        accepted, _ = server.accept()
        with closing(accepted):
            return echoes(client, accepted)


def echoes(client: socket.socket, accepted: socket.socket) -> bool:
    for one, other in ((client, accepted), (accepted, client)):
        one.settimeout(0.7)
        other.settimeout(0.7)
        try:
            one.sendall(b"word")
            if other.recv(16) != b"word":
                return False
        except TimeoutError:
            return False
    return True


@BOTH
def test_ingress_lets_in_who_is_allowed_on_the_port_that_is(mesh: TwoNodes, family: int) -> None:
    with mesh.server.bound(family) as open_port, mesh.server.bound(family) as other_port:
        block = Block(TCP, open_port.getsockname()[1], 24)
        police(mesh.b, mesh.server, allow(mesh.server, INGRESS, mesh.client.identity, block))
        before = mesh.b.maps.drops()[DropReason.POLICY_CLOSED]
        assert reaches(mesh.client, open_port)
        assert not reaches(mesh.bystander, open_port)
        assert not reaches(mesh.client, other_port)
        assert mesh.b.maps.drops()[DropReason.POLICY_CLOSED] > before


@BOTH
def test_egress_by_tunnel_and_to_a_pod_of_the_same_node(mesh: TwoNodes, family: int) -> None:
    with mesh.server.bound(family) as far, mesh.bystander.bound(family) as near:
        assert reaches(mesh.client, far)
        assert reaches(mesh.client, near)
        police(mesh.a, mesh.client, allow(mesh.client, EGRESS, mesh.server.identity), closed=(EGRESS,))
        assert reaches(mesh.client, far)
        assert not reaches(mesh.client, near)
        police(mesh.a, mesh.client, allow(mesh.client, EGRESS, mesh.bystander.identity), closed=(EGRESS,))
        assert not reaches(mesh.client, far)
        assert reaches(mesh.client, near)


@pytest.mark.parametrize("backend", ["far", "near"])
def test_answers_of_a_backend_pass_to_a_closed_pod_that_asked_the_frontend(mesh: TwoNodes, backend: str) -> None:
    """Translated per packet, the answer comes from the frontend; the policy is about the backend, both ways."""
    pod = mesh.server if backend == "far" else mesh.bystander
    with pod.bound(socket.AF_INET) as server:
        made = add_service(mesh.a, "30.1.0.77", 80, 6, (str(pod.v4), server.getsockname()[1]))
        try:
            police(mesh.a, mesh.client, allow(mesh.client, EGRESS, pod.identity))
            with closing(mesh.client.namespace.socket(socket.AF_INET, socket.SOCK_STREAM, timeout=0.7)) as client:
                client.connect(("30.1.0.77", 80))
                accepted, _ = server.accept()
                with closing(accepted):
                    assert echoes(client, accepted)
                    assert echoes(client, accepted)
        finally:
            mesh.a.remove(*reversed(made))


@BOTH
def test_ingress_of_what_the_stack_delivers(mesh: TwoNodes, family: int) -> None:
    with mesh.bystander.bound(family) as near:
        police(mesh.a, mesh.bystander, closed=(INGRESS,))
        assert not reaches(mesh.client, near)
        police(mesh.a, mesh.bystander, allow(mesh.bystander, INGRESS, mesh.client.identity), closed=(INGRESS,))
        assert reaches(mesh.client, near)


@BOTH
def test_a_connection_lives_through_changes_that_allow_it_and_ends_with_one_that_does_not(
    mesh: TwoNodes, family: int
) -> None:
    with mesh.server.bound(family) as server:
        everything = allow(mesh.server, INGRESS, mesh.client.identity)
        police(mesh.b, mesh.server, everything)
        with closing(mesh.client.namespace.socket(family, socket.SOCK_STREAM)) as client:
            client.connect(server.getsockname()[:2])
            accepted, _ = server.accept()
            with closing(accepted):
                assert echoes(client, accepted)
                block = Block(TCP, server.getsockname()[1], 24)
                police(mesh.b, mesh.server, allow(mesh.server, INGRESS, mesh.client.identity, block))
                assert echoes(client, accepted)
                police(mesh.b, mesh.server, allow(mesh.server, INGRESS, mesh.bystander.identity))
                assert not echoes(client, accepted)
                police(mesh.b, mesh.server, everything)
                assert reaches(mesh.client, server)


def test_audit_lets_pass_and_counts(mesh: TwoNodes) -> None:
    with mesh.server.bound(socket.AF_INET) as server:
        police(mesh.b, mesh.server, audit=True)
        before = mesh.b.maps.drops()[DropReason.POLICY_AUDITED]
        assert reaches(mesh.client, server)
        assert mesh.b.maps.drops()[DropReason.POLICY_AUDITED] > before


def test_a_closed_pod_hears_that_its_datagram_is_too_big(mesh: TwoNodes) -> None:
    police(mesh.a, mesh.client, allow(mesh.client, EGRESS, mesh.server.identity))
    with closing(mesh.client.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
        sender.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
        sender.connect((str(mesh.server.v4), 9))
        told = 0
        for _ in range(20):
            try:
                sender.send(bytes(1460))
            except OSError as error:
                told = error.errno or 0
        assert told == errno.EMSGSIZE


def test_policies_of_the_cni_apply_as_well_to_what_passes_the_stack(mesh: TwoNodes) -> None:
    cni = mesh.a.namespace
    with mesh.bystander.bound(socket.AF_INET) as near:
        police(mesh.a, mesh.bystander, allow(mesh.bystander, INGRESS, mesh.client.identity), closed=(INGRESS,))
        assert reaches(mesh.client, near)
        cni.run("nft", "add table ip theirs; add chain ip theirs forward { type filter hook forward priority 0; }")
        try:
            cni.run("nft", f"add rule ip theirs forward ip daddr {mesh.bystander.v4} counter drop")
            assert not reaches(mesh.client, near), "they drop what we allow"
        finally:
            cni.run("nft", "delete table ip theirs")
        police(mesh.a, mesh.bystander, closed=(INGRESS,))
        assert not reaches(mesh.client, near), "we drop what they allow"


def test_a_cluster_ip_that_kube_proxy_translates_is_judged_as_the_address_asked_for(mesh: TwoNodes) -> None:
    """Whoever may reach the backend does not by that reach the ClusterIP: closed, until its address is allowed."""
    node, address, number = mesh.a, "30.8.1.1", CIDR_NUMBER
    with mesh.bystander.bound(socket.AF_INET) as server:
        backend = "{}:{}".format(*server.getsockname())
        node.namespace.run(
            "nft", "add table ip kube; add chain ip kube pre { type nat hook prerouting priority -100; }"
        )
        outside = outside_entry(ip_network(f"{address}/32"), number)
        try:
            node.namespace.run("nft", f"add rule ip kube pre ip daddr {address} tcp dport 80 dnat to {backend}")
            to_backend = allow(mesh.client, EGRESS, mesh.bystander.identity)
            police(node, mesh.client, to_backend, closed=(EGRESS,))
            assert reaches(mesh.client, server)
            assert not reaches(mesh.client, server, (address, 80))
            node.write(outside)
            police(node, mesh.client, to_backend, allow(mesh.client, EGRESS, number), closed=(EGRESS,))
            assert reaches(mesh.client, server, (address, 80)), "by toCIDR"
            police(node, mesh.bystander, closed=(INGRESS,))
            assert not reaches(mesh.client, server, (address, 80)), "the backend's ingress judges the client"
        finally:
            node.namespace.run("nft", "delete table ip kube")
            node.remove(outside)
