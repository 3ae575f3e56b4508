"""Pods of one bridge: judged at their ports, also what the bridge switches without any routing.

10.9.0.2  10.9.0.3  10.9.0.4        one bridge cni0, 10.9.0.1/24 and fd00:9::1/64
 server    friend    stranger       each at a port, where policy_out and policy_in hang
"""

import socket
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from ipaddress import IPv4Address, IPv6Address

import pytest

from datapath import entries
from datapath.attach import attach_endpoint
from datapath.layout import DropReason
from datapath.loader import LoadSettings, ensure_loaded
from datapath.maps import Maps
from policy.ports import TCP, Block
from routing.devices import ensure_vxlan
from tests.support.enforced import EGRESS, INGRESS, allow, police, release
from tests.support.netns import link, machine
from tests.support.twonodes import TUNNEL_PORT, Node, Pod

pytestmark = pytest.mark.root
V4, V6 = socket.AF_INET, socket.AF_INET6
BOTH = pytest.mark.parametrize("family", [V4, V6], ids=["IPv4", "IPv6"])
DROPPED_S = 0.3
NAMES = ("server", "friend", "stranger")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with machine() as each:
        namespace = each.namespace("node")
        namespace.ip("link", "add", "cni0", "type", "bridge")
        namespace.ip("link", "set", "cni0", "up")
        namespace.ip("addr", "add", "10.9.0.1/24", "dev", "cni0")
        namespace.ip("addr", "add", "fd00:9::1/64", "dev", "cni0", "nodad")
        instance = f"{each.tag}.bridge"
        settings = LoadSettings(each.bpffs(tmp_path_factory.mktemp("bridge") / "bpf"), instance, each.cgroup("bridge"))
        loaded = ensure_loaded(settings)
        tunnel = namespace.call(lambda: ensure_vxlan(alias=f"meshd:{instance}", port=TUNNEL_PORT))
        with Maps(loaded.folder) as maps:
            node = Node("a", namespace, IPv4Address("192.0.2.1"), settings, loaded, maps, tunnel)
            for number, name in enumerate(NAMES, 2):
                pod = each.namespace(name)
                link(namespace, name, pod, "eth0")
                namespace.ip("link", "set", name, "master", "cni0")
                pod.ip("addr", "add", f"10.9.0.{number}/24", "dev", "eth0")
                pod.ip("addr", "add", f"fd00:9::{number}/64", "dev", "eth0", "nodad")
                v4, v6 = IPv4Address(f"10.9.0.{number}"), IPv6Address(f"fd00:9::{number}")
                node.pods[name] = Pod(pod, name, v4, v6, 65536 + number)
                introduce(node, node.pods[name])
            yield node


def introduce(node: Node, pod: Pod) -> None:
    for address in (pod.v4, pod.v6):
        found = node.interface(address)
        assert found.name == pod.device, "the port, not the bridge"
        node.write(
            entries.ipcache_entry(address, identity=pod.identity, tunnel=None, remote=False),
            entries.endpoint_entry(
                address, ifindex=found.ifindex, mac=found.mac, host_mac=found.host_mac, identity=pod.identity
            ),
        )
        node.namespace.call(partial(attach_endpoint, found.ifindex, node.loaded.programs))


@pytest.fixture
def node(made: Node) -> Iterator[Node]:
    yield made
    for pod in made.pods.values():
        release(made, pod)


def reaches(source: Pod, server: socket.socket, *, within: float = 5.0) -> bool:
    with closing(source.namespace.socket(server.family, socket.SOCK_STREAM, timeout=within)) as client:
        try:
            client.connect(server.getsockname()[:2])
        except TimeoutError:
            return False
        return True


@BOTH
def test_pods_of_one_bridge_are_judged_at_their_ports(node: Node, family: int) -> None:
    server, friend, stranger = (node.pods[name] for name in NAMES)
    with server.bound(family) as listener:
        assert reaches(friend, listener)
        assert reaches(stranger, listener)
        block = Block(TCP, listener.getsockname()[1], 24)
        police(node, server, allow(server, INGRESS, friend.identity, block))
        before = node.maps.drops()[DropReason.POLICY_CLOSED]
        assert reaches(friend, listener), "its answers pass, though the server's egress is closed"
        assert not reaches(stranger, listener, within=DROPPED_S)
        assert node.maps.drops()[DropReason.POLICY_CLOSED] > before
        police(node, friend, closed=(EGRESS,))
        assert not reaches(friend, listener, within=DROPPED_S)
        police(node, friend, allow(friend, EGRESS, server.identity, block), closed=(EGRESS,))
        assert reaches(friend, listener)
        release(node, server)
        assert reaches(stranger, listener)
