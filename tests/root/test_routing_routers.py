"""Mode direct through a router whose link is narrower, under rules that drop what connection tracking does not know, as
kube-proxy leaves them: it knows nothing of what passes by redirect.

    pod 10.1.0.1 ── node a eth0 ── router ── 1400 ── eth0 node b ── pod 10.2.0.1
    fd00:1::1      172.31.1.1, fd00:31:1::1    172.31.2.1, fd00:31:2::1     fd00:2::1
"""

import socket
import struct
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from ipaddress import ip_address

import pytest

from datapath import entries
from datapath.attach import attach_network
from datapath.entries import Direct
from tests.support.twonodes import CLUSTER_IDS, Node, TwoNodes, two_nodes
from tests.support.waiting import until

pytestmark = pytest.mark.root
NARROW = 1400
SIXES = {"a": "fd00:31:1::1", "b": "fd00:31:2::1"}
GUARD = "add table inet kube; add chain inet kube forwarding { type filter hook forward priority 0; }"
FAMILIES = [socket.AF_INET, socket.AF_INET6]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path_factory.mktemp("routers"), underlay=("172.31.1.1/24", "172.31.2.1/24")) as made:
        for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            made.switch.sysctl(setting, "1")
        for here, there in ((made.a, made.b), (made.b, made.a)):
            put_behind_the_router(made, here, there)
        for here, there in ((made.a, made.b), (made.b, made.a)):
            here.write(directly(here, there))
            here.namespace.call(partial(attach_network, underlay(here), here.loaded.programs))
            here.namespace.run("nft", f"{GUARD}; add rule inet kube forwarding ct state invalid counter drop")
        made.switch.ip("link", "set", "to-b", "mtu", str(NARROW))
        yield made


def put_behind_the_router(mesh: TwoNodes, here: Node, there: Node) -> None:
    """The switch routes: pods' prefixes too."""
    own, other, port = CLUSTER_IDS[here.name], CLUSTER_IDS[there.name], f"to-{here.name}"
    mesh.switch.ip("link", "set", port, "nomaster")
    mesh.switch.ip("addr", "add", f"172.31.{own}.254/24", "dev", port)
    mesh.switch.ip("addr", "add", f"fd00:31:{own}::fe/64", "dev", port, "nodad")
    here.namespace.ip("addr", "add", f"{SIXES[here.name]}/64", "dev", "eth0", "nodad")
    for prefix, via in (("10.{}.0.0/24", here.underlay), ("fd00:{}::/64", SIXES[here.name])):
        mesh.switch.ip("route", "add", prefix.format(own), "via", str(via))
    here.namespace.ip("route", "add", f"172.31.{other}.0/24", "via", f"172.31.{own}.254")
    here.namespace.ip("route", "add", f"fd00:31:{other}::/64", "via", f"fd00:31:{own}::fe")


def underlay(node: Node) -> int:
    return int(node.namespace.ip("-o", "link", "show", "dev", "eth0").split(":")[0])


def directly(here: Node, there: Node) -> entries.Entry:
    own = CLUSTER_IDS[here.name]
    hops = [ip_address(text) for text in (f"172.31.{own}.254", f"fd00:31:{own}::fe")]
    four, six = (Direct(underlay(here), hop, 1500) for hop in hops)
    number = CLUSTER_IDS[there.name]
    return entries.node_entry(there.underlay, cluster_id=number, remote=True, direct4=four, direct6=six)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_router_says_of_a_pods_packet_reaches_the_pod(mesh: TwoNodes, family: int) -> None:
    six = family == socket.AF_INET6
    level, discover, known = (41, 23, 24) if six else (0, 10, 14)
    with closing(mesh.client.namespace.socket(family, socket.SOCK_DGRAM)) as client:
        client.connect((str(mesh.server.v6 if six else mesh.server.v4), 9))
        client.setsockopt(level, discover, 2)  # DO
        with suppress(OSError):  # nobody listens there
            client.send(bytes(NARROW))
        until(lambda: client.getsockopt(level, known) == NARROW)


def too_big(source: str, destination: str) -> bytes:
    """ICMP "fragmentation needed" about a datagram between these."""
    quoted = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 1500, 0, 0x4000, 64, 17, 0, packed(source), packed(destination))
    rest = struct.pack("!HH", 0, NARROW) + quoted + struct.pack("!HHHH", 1000, 9, 1480, 0)
    words = (0x0304, *struct.unpack(f"!{len(rest) // 2}H", rest))
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!HH", 0x0304, total ^ 0xFFFF) + rest


def packed(address: str) -> bytes:
    return ip_address(address).packed


def guarded(node: Node) -> int:
    """Packets that the node's rules have dropped."""
    words = node.namespace.run("nft", "list", "table", "inet", "kube").split()
    return int(words[words.index("packets") + 1])


@pytest.mark.parametrize(("source", "destination"), [("10.1.0.1", "192.0.2.1"), ("10.1.0.2", "10.2.0.1")])
def test_what_is_about_no_packet_of_the_pod_and_the_mesh_stays_the_stacks(
    mesh: TwoNodes, source: str, destination: str
) -> None:
    before = guarded(mesh.a)
    with closing(mesh.switch.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)) as router:
        router.sendto(too_big(source, destination), (str(mesh.client.v4), 0))
    until(lambda: guarded(mesh.a) == before + 1)
