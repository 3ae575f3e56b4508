"""ClusterIPs from the node itself: a process of the host's network, by the socket hooks, to pods of both clusters.

Drawn in tests/support/twonodes.py; node a has, as the daemon makes them, routes to the other cluster's pods, and says
that its own sockets are balanced too.
"""

import socket
from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv6Address

import pytest

from datapath.entries import config_entry, node_entry
from tests.support.netns import joined
from tests.support.twonodes import CLUSTER_IDS, Node, TwoNodes, add_service, by_tunnel, two_nodes

pytestmark = pytest.mark.root
V4, V6 = socket.AF_INET, socket.AF_INET6
BOTH = pytest.mark.parametrize("family", [V4, V6], ids=["IPv4", "IPv6"])
WHERE = pytest.mark.parametrize("remote", [True, False], ids=["remote", "same-node"])
SIXES = {"a": IPv6Address("fd00:172::1"), "b": IPv6Address("fd00:172::2")}
FRONTEND: dict[int, str] = {V4: "30.9.1.1", V6: "fd00:30::91"}
PORT, PATIENCE_S = 80, 5.0


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path_factory.mktemp("node")) as made:
        for node, other in ((made.a, made.b), (made.b, made.a)):
            node.namespace.ip("addr", "add", f"{SIXES[node.name]}/64", "dev", "eth0", "nodad")
            node.write(by_tunnel(node, other, SIXES[other.name]))
            node.write(node_entry(SIXES[node.name], cluster_id=CLUSTER_IDS[node.name], remote=False, here=True))
        made.a.write(config_entry(tunnel_ifindex=made.a.tunnel.ifindex, underlay_mtu=1500))
        for prefix, source in (("10.2.0.0/24", made.a.underlay), ("fd00:2::/64", SIXES["a"])):
            made.a.namespace.ip("route", "add", prefix, "dev", "md_vxlan", "src", str(source))
        made.a.namespace.ip("link", "set", "md_vxlan", "mtu", "1450")
        for node in (made.a, made.b):  # CNIs masquerade what pods send, not what the node sends
            node.namespace.run("nft", "flush chain ip cni post")
            node.namespace.run("nft", "add rule ip cni post ip saddr 10.0.0.0/8 masquerade")
        yield made


def of_node(node: Node, family: int, kind: int) -> socket.socket:
    """A socket of a process of the node: its network namespace and its cgroup."""
    with joined(node.cgroup):
        made = node.namespace.socket(family, kind)
    made.settimeout(PATIENCE_S)
    return made


def behind(mesh: TwoNodes, remote: bool, family: int, kind: int) -> socket.socket:
    pod = mesh.server if remote else mesh.client
    server = pod.bound(family, kind)
    server.settimeout(PATIENCE_S)
    protocol = socket.IPPROTO_TCP if kind == socket.SOCK_STREAM else socket.IPPROTO_UDP
    add_service(mesh.a, FRONTEND[family], PORT, protocol, server.getsockname()[:2])
    return server


@BOTH
@WHERE
def test_tcp(mesh: TwoNodes, remote: bool, family: int) -> None:
    payload = bytes(100_000)
    with (
        behind(mesh, remote, family, socket.SOCK_STREAM) as server,
        of_node(mesh.a, family, socket.SOCK_STREAM) as client,
    ):
        client.connect((FRONTEND[family], PORT))
        assert client.getpeername()[:2] == (FRONTEND[family], PORT)
        with closing(server.accept()[0]) as accepted:
            accepted.settimeout(PATIENCE_S)
            for one, other in ((client, accepted), (accepted, client)):
                one.sendall(payload)
                left = len(payload)
                while left:
                    left -= len(other.recv(left))


@BOTH
@WHERE
@pytest.mark.parametrize("connected", [True, False], ids=["connected", "unconnected"])
def test_udp(mesh: TwoNodes, connected: bool, remote: bool, family: int) -> None:
    frontend = (FRONTEND[family], PORT)
    with (
        behind(mesh, remote, family, socket.SOCK_DGRAM) as server,
        of_node(mesh.a, family, socket.SOCK_DGRAM) as client,
    ):
        if connected:
            client.connect(frontend)
        for _ in range(3):
            client.send(b"ask") if connected else client.sendto(b"ask", frontend)
            data, peer = server.recvfrom(100)
            server.sendto(data + b"ed", peer)
            answer, sender = client.recvfrom(100)
            assert (answer, sender[:2]) == (b"asked", frontend)
