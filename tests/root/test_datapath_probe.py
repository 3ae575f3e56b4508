"""Probes through the tunnel device, and packets to a withdrawn cluster. The topology: tests/support/twonodes.py."""

import socket
from collections.abc import Iterator
from functools import partial

import pytest

from datapath import entries
from datapath.attach import attach_tunnel
from datapath.layout import DropReason
from datapath.probe import ETHER_TYPE, decode_reply, encode_request
from routing.devices import ensure_tunnel
from routing.tunnel import Encapsulation, Tunnel
from tests.support.capture import capturing, tunnelled
from tests.support.twonodes import TUNNEL_PORT, TwoNodes, two_nodes

pytestmark = pytest.mark.root
COOKIE = 0x1122334455667788
# IP_RECVERR, IPV6_RECVERR: without them UDP hears of closed ports only.
RECEIVE_ERRORS = {socket.AF_INET: (0, 11, 1), socket.AF_INET6: (41, 25, 1)}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path_factory.mktemp("mesh")) as made:
        yield made


def ask(mesh: TwoNodes, number: int, port: int = TUNNEL_PORT, *, to: str = "") -> int | None:
    """Sends a probe from a to b, as the daemon does; the number that came back."""
    listener = mesh.a.namespace.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETHER_TYPE))
    sender = mesh.a.namespace.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM)
    with listener, sender:
        listener.settimeout(5)
        sender.sendto(encode_request(number, COOKIE), (to or str(mesh.b.underlay), port))
        return decode_reply(listener.recv(2000), COOKIE)


def test_a_probe_comes_back_from_the_other_nodes_program(mesh: TwoNodes) -> None:
    assert [ask(mesh, number) for number in (1, 2, 0xFFFFFFFF)] == [1, 2, 0xFFFFFFFF]


def test_a_large_probe_is_answered_in_short(mesh: TwoNodes) -> None:
    """The way back may be narrower than the way there."""
    request = encode_request(8, COOKIE, size=1400)
    with (
        mesh.a.namespace.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETHER_TYPE)) as listener,
        mesh.a.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        listener.settimeout(5)
        sender.sendto(request, (str(mesh.b.underlay), TUNNEL_PORT))
        reply = listener.recv(2000)
    assert (decode_reply(reply, COOKIE), len(reply)) == (8, 60 - 14)


def test_a_node_of_another_port_is_probed_by_its_port(mesh: TwoNodes) -> None:
    other = Tunnel(Encapsulation.VXLAN, 4790)
    for node in (mesh.a, mesh.b):
        alias = f"meshd:{node.settings.instance}"
        device = node.namespace.call(partial(ensure_tunnel, other, alias=alias, name=other.device))
        node.namespace.call(partial(attach_tunnel, device.ifindex, node.loaded.programs))
    assert ask(mesh, 7, other.port) == 7


def test_what_a_geneve_device_would_get(mesh: TwoNodes) -> None:
    """Header of RFC 8926; behind it the same frame. The answering program is the same for both kinds."""
    vxlan, geneve = (encode_request(9, COOKIE, kind=kind) for kind in ("vxlan", "geneve"))
    assert geneve[:8] == bytes.fromhex("0000 6558 000004 00")
    assert geneve[8:] == vxlan[8:]


def test_the_underlay_of_a_probe_may_be_ipv6(mesh: TwoNodes) -> None:
    sixes = [(mesh.a, "fd00:172::1"), (mesh.b, "fd00:172::2")]
    try:
        for node, address in sixes:
            node.namespace.ip("addr", "add", f"{address}/64", "dev", "eth0", "nodad")
        assert ask(mesh, 6, to=sixes[1][1]) == 6
    finally:
        for node, _ in sixes:
            node.namespace.ip("-6", "addr", "flush", "dev", "eth0", "scope", "global")


def say(client: socket.socket, server: str) -> None:
    client.connect((server, 9))
    client.send(b"x")
    client.recv(1)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_packet_to_a_withdrawn_cluster_is_refused_at_once_and_counted(
    mesh: TwoNodes, family: socket.AddressFamily, kind: int
) -> None:
    server = mesh.server.v4 if family == socket.AF_INET else mesh.server.v6
    entry = partial(entries.ipcache_entry, server, identity=mesh.server.identity, tunnel=mesh.b.underlay, remote=True)
    before = mesh.a.maps.drops()[DropReason.PEER_WITHDRAWN]
    mesh.a.write(entry(unreachable=True))
    try:
        with capturing(mesh.switch, "to-a") as capture, mesh.client.namespace.socket(family, kind) as client:
            client.settimeout(5)
            client.setsockopt(*RECEIVE_ERRORS[family])
            with pytest.raises(OSError, match="No route to host"):
                say(client, str(server))
            assert not [frame for frame in capture.seen() if tunnelled(frame, TUNNEL_PORT)]
    finally:
        mesh.a.write(entry())
    assert mesh.a.maps.drops()[DropReason.PEER_WITHDRAWN] > before
