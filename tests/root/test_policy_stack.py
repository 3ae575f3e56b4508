"""Where a CNI has policies of its own: with `through_stack` its netfilter rules see what pods of different clusters say
to each other, and both apply. The topology is drawn in tests/support/twonodes.py.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from ipaddress import IPv6Address

import pytest

from datapath import entries
from datapath.attach import attach_network
from datapath.entries import Direct
from datapath.layout import Endpoint, EndpointFlag
from policy.ports import TCP
from tests.support.enforced import INGRESS, allow, police, release
from tests.support.twonodes import CLUSTER_IDS, Node, Pod, TwoNodes, add_service, by_tunnel, two_nodes

pytestmark = pytest.mark.root
V4, V6 = socket.AF_INET, socket.AF_INET6
BOTH = pytest.mark.parametrize("family", [V4, V6], ids=["IPv4", "IPv6"])
SIXES = {"a": IPv6Address("fd00:172::1"), "b": IPv6Address("fd00:172::2")}
CIDRS = {"a": ("10.1.0.0/24", "fd00:1::/64"), "b": ("10.2.0.0/24", "fd00:2::/64")}
PATIENCE_S, DROPPED_S = 5.0, 0.3
INVALID = "ct state invalid counter drop"  # kube-proxy's own


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path_factory.mktemp("stack")) as nodes:
        for node in (nodes.a, nodes.b):
            node.namespace.ip("addr", "add", f"{SIXES[node.name]}/64", "dev", "eth0", "nodad")
            node.namespace.call(partial(attach_network, device(node, "eth0"), node.loaded.programs))
            node.namespace.run("nft", "insert rule ip cni post ip daddr 10.0.0.0/8 accept")  # other clusters' PodCIDRs
            node.namespace.run("nft", "add table inet theirs")
            node.namespace.run("nft", "add chain inet theirs forward { type filter hook forward priority 0; }")
        yield nodes


@pytest.fixture(params=["tunnel", "direct"])
def mesh(made: TwoNodes, request: pytest.FixtureRequest) -> Iterator[TwoNodes]:
    """No policy and no rule at the start; as the daemon does, a route leads where packets are carried."""
    for node, other in ((made.a, made.b), (made.b, made.a)):
        node.namespace.run("nft", "flush chain inet theirs forward")
        node.write(by_tunnel(node, other) if request.param == "tunnel" else directly(node, other))
        hops = [str(other.underlay), str(SIXES[other.name])]
        for prefix, hop in zip(CIDRS[other.name], hops, strict=True):
            way = ["dev", "md_vxlan"] if request.param == "tunnel" else ["via", hop, "dev", "eth0"]
            node.namespace.ip("route", "replace", prefix, *way)
    yield made
    for node in (made.a, made.b):
        for pod in node.pods.values():
            release(node, pod)


def device(node: Node, name: str) -> int:
    return int(node.namespace.ip("-o", "link", "show", "dev", name).split(":")[0])


def directly(node: Node, other: Node) -> entries.Entry:
    eth0 = device(node, "eth0")
    return entries.node_entry(
        other.underlay,
        cluster_id=CLUSTER_IDS[other.name],
        remote=True,
        direct4=Direct(eth0, other.underlay, 1500),
        direct6=Direct(eth0, SIXES[other.name], 1500),
    )


def send_through_stack(mesh: TwoNodes) -> None:
    for node in (mesh.a, mesh.b):
        for key, value in node.maps.dump("md_endpoint").items():
            endpoint = Endpoint.from_buffer_copy(value)
            endpoint.flags |= EndpointFlag.STACK
            node.maps.upsert("md_endpoint", {key: bytes(endpoint)})


def forbid(node: Node, pod: Pod, family: int) -> None:
    version, address = ("ip", pod.v4) if family == V4 else ("ip6", pod.v6)
    node.namespace.run("nft", f"add rule inet theirs forward {version} daddr {address} counter drop")


def talks(source: Pod, target: tuple[str, int], server: socket.socket, *, within: float = PATIENCE_S) -> bool:
    """A connection is made and carries a lot both ways, from the pod's own address; a drop is silence."""
    payload = bytes(200_000)
    with closing(source.namespace.socket(server.family, socket.SOCK_STREAM, timeout=within)) as client:
        try:
            client.connect(target)
        except TimeoutError:
            return False
        accepted, peer = server.accept()
        with closing(accepted):
            accepted.settimeout(within)
            assert peer[0] in (str(source.v4), str(source.v6)), "nothing is masqueraded"
            for one, other in ((client, accepted), (accepted, client)):
                one.sendall(payload)
                left = len(payload)
                while left:
                    left -= len(other.recv(left))
    return True


@BOTH
@pytest.mark.parametrize("where", [lambda mesh: mesh.a, lambda mesh: mesh.b], ids=["sender", "receiver"])
def test_rules_of_the_cni_and_ours_both_apply(mesh: TwoNodes, where: Callable[[TwoNodes], Node], family: int) -> None:
    with mesh.server.bound(family) as server:
        target = server.getsockname()[:2]
        police(mesh.b, mesh.server, allow(mesh.server, INGRESS, mesh.client.identity), closed=(INGRESS,))
        send_through_stack(mesh)
        for node in (mesh.a, mesh.b):
            node.namespace.run("nft", f"add rule inet theirs forward {INVALID}")
        assert talks(mesh.client, target, server), "both allow it"
        assert not talks(mesh.bystander, target, server, within=DROPPED_S), "we drop what they allow"
        forbid(where(mesh), mesh.server, family)
        assert not talks(mesh.client, target, server, within=DROPPED_S), "they drop what we allow"
        for node in (mesh.a, mesh.b):
            assert "packets 0 " in next(line for line in rules(node) if INVALID.split(" counter")[0] in line)


def rules(node: Node) -> list[str]:
    return node.namespace.run("nft", "list chain inet theirs forward").splitlines()


@BOTH
def test_a_backend_of_another_cluster_is_seen_by_its_own_address(mesh: TwoNodes, family: int) -> None:
    frontend = "30.7.1.1" if family == V4 else "fd00:30::71"
    with mesh.server.bound(family) as server:
        add_service(mesh.a, frontend, 80, TCP, server.getsockname()[:2])
        send_through_stack(mesh)
        assert talks(mesh.client, (frontend, 80), server)
        forbid(mesh.a, mesh.server, family)
        assert not talks(mesh.client, (frontend, 80), server, within=DROPPED_S)


@BOTH
def test_without_it_they_see_nothing_of_other_clusters(mesh: TwoNodes, family: int) -> None:
    with mesh.server.bound(family) as server:
        for node in (mesh.a, mesh.b):
            forbid(node, mesh.server, family)
        assert talks(mesh.client, server.getsockname()[:2], server)
