"""Underlays of other sizes than the pods': nothing is cut outside, nothing is lost in silence. Both modes, planned as
the daemon plans (tests/support/planned.py).

    pod a ── node a ── eth0 ── switch ── eth0 ── node b ── pod b        MTU of eth0s and the switch: that of each row
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from routing.plan import Mode
from tests.support.capture import capturing, is_fragment
from tests.support.planned import plan
from tests.support.twonodes import Pod, TwoNodes, two_nodes

pytestmark = pytest.mark.root
TUNNEL_BYTES = 50
TRANSFER = 2 << 20
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, DO = 10, 23, 2
ROWS = [(1280, 1500), (1400, 1500), (1500, 9000), (9000, 1500), (9000, 9000)]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path_factory.mktemp("mtu")) as made:
        yield made


def set_mtu(mesh: TwoNodes, underlay: int, pods: int) -> None:
    for node in (mesh.a, mesh.b):
        mesh.switch.ip("link", "set", f"to-{node.name}", "mtu", str(underlay))
        node.namespace.ip("link", "set", "eth0", "mtu", str(underlay))
        for name, pod in node.pods.items():
            node.namespace.ip("link", "set", name, "mtu", str(pods))
            pod.namespace.ip("link", "set", "eth0", "mtu", str(pods))
            for family in ("-4", "-6"):  # forgets what it was told of the way
                pod.namespace.ip(family, "route", "flush", "cache")


def address(pod: Pod, family: int) -> str:
    return str(pod.v4 if family == socket.AF_INET else pod.v6)


def send(client: socket.socket) -> None:
    client.sendall(bytes(TRANSFER))
    client.shutdown(socket.SHUT_WR)


def transferred(here: Pod, there: Pod, family: int) -> int:
    """Bytes that arrived of so many sent in one direction."""
    with (
        closing(there.namespace.socket(family, socket.SOCK_STREAM)) as server,
        closing(here.namespace.socket(family, socket.SOCK_STREAM, timeout=20)) as client,
    ):
        server.bind((address(there, family), 0))
        server.listen()
        client.connect(server.getsockname()[:2])
        accepted, _ = server.accept()
        with closing(accepted):
            accepted.settimeout(20)
            sending = threading.Thread(target=send, args=(client,))
            sending.start()
            arrived = 0
            while data := accepted.recv(1 << 20):
                arrived += len(data)
            sending.join()
    return arrived


def told_size(here: Pod, there: Pod, family: int, fits: int) -> int | None:
    """What a pod's kernel knows after a datagram that is one byte too large; None if nothing told it."""
    level, option, known = (41, IPV6_MTU_DISCOVER, 24) if family == socket.AF_INET6 else (0, IP_MTU_DISCOVER, 14)
    headers = 48 if family == socket.AF_INET6 else 28
    with closing(here.namespace.socket(family, socket.SOCK_DGRAM)) as client:
        client.connect((address(there, family), 9))
        client.setsockopt(level, option, DO)
        with suppress(OSError):  # too large, or nobody listens: the first send hears it, or the second
            client.send(bytes(fits - headers + 1))
            client.send(bytes(8))
        return int(client.getsockopt(level, known))


@pytest.mark.parametrize("mode", [Mode.TUNNEL, Mode.DIRECT])
@pytest.mark.parametrize(("underlay", "pods"), ROWS, ids=lambda size: str(size))
def test_full_size_whatever_the_underlay_has(mesh: TwoNodes, underlay: int, pods: int, mode: Mode) -> None:
    set_mtu(mesh, underlay, pods)
    plan(mesh, mode)
    fits = underlay - (TUNNEL_BYTES if mode is Mode.TUNNEL else 0)
    with capturing(mesh.switch, "to-a") as capture:
        for family in (socket.AF_INET, socket.AF_INET6) if mode is Mode.TUNNEL else (socket.AF_INET,):
            for here, there in ((mesh.client, mesh.server), (mesh.server, mesh.client)):
                assert transferred(here, there, family) == TRANSFER
                if fits < pods and (fits >= 1280 or family == socket.AF_INET):  # IPv6 knows nothing smaller
                    assert told_size(here, there, family, fits) == fits
        assert not [frame for frame in capture.seen() if is_fragment(frame)]
