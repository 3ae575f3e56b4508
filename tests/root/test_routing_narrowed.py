"""A way that becomes narrower while it is used, and wide again: the router on it says so, and nobody else does, as
probes do not pass it. With everything running; cluster1 tunnels over IPv6, cluster2 over IPv4.

    pod 10.0.0.1 ── node1 of cluster1 ── eth0  router  eth1 ── node1 of cluster2 ── pod 20.0.0.1
                                       the port to the receiver: 1500, then less
All ports are on the switch's br0; to the router lead host routes of IPv4, and IPv6's subnets
fd00:18:1::/64 and fd00:18:2::/64.
"""

import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial

import pytest

from meshd.testbed import netns
from meshd.testbed.check import ensure_bpffs
from meshd.testbed.layout import BPFFS
from meshd.testbed.testbed import Testbed
from meshd.testbed.trust import ensure_certificates, write_peers
from tests.support.routedbed import asked, held, nodes, told_size
from tests.support.waiting import until

pytestmark = pytest.mark.root
PODS = {"cluster1": "10.0.0.1", "cluster2": "20.0.0.1"}
PAIRS = [("cluster1", "cluster2", 1450), ("cluster2", "cluster1", 1350)]  # a receiver that knows of less asks for less
UNDERLAYS = {"cluster1": 6, "cluster2": 4}
SIZE, OVERHEAD = 1500, {4: 50, 6: 70}
ROUTER = {"cluster1": ("eth0", "172.18.0.254", "fd00:18:1::fe"), "cluster2": ("eth1", "172.18.0.253", "fd00:18:2::fe")}
PROBES = "udp dport 8473 @th,224,16 0x88b5"


@pytest.fixture(scope="module")
def beds() -> Iterator[dict[str, Testbed]]:
    """One testbed, by the cluster whose daemons are to be started with its flags."""
    tag = f"w{secrets.token_hex(3)}"
    beds = {name: Testbed(tag, sorted(PODS), daemon_flags=(f"--underlay={n}",)) for name, n in UNDERLAYS.items()}
    testbed = beds["cluster1"]
    try:
        testbed.up(mesh=False)
        put_a_router_between(testbed)
        give_ipv6(testbed)
        ensure_bpffs(BPFFS)
        ensure_certificates(testbed.layout, testbed.clusters)
        write_peers(testbed.layout, testbed.clusters)
        for cluster, each in beds.items():
            testbed.start_parts(part for name, part in each.parts.items() if name.startswith(cluster))
        until(lambda: set(states(testbed)) == {"ok"}, lambda: states(testbed))
        rules = ["add table inet shut", "add chain inet shut on { type filter hook forward priority 0; }"]
        netns.nft("; ".join([*rules, f"add rule inet shut on {PROBES} drop"]), namespace=router(testbed))
        yield beds
    finally:
        testbed.down()


def states(bed: Testbed) -> list[object]:
    return [asked(bed, *node).get("state") for node in nodes(bed)]


def router(bed: Testbed) -> str:
    return f"{bed.layout.prefix}router"


def put_a_router_between(bed: Testbed) -> None:
    netns.ip([f"netns add {router(bed)}"])
    settings = ("ipv4.ip_forward=1", "ipv6.conf.all.forwarding=1", "ipv4.conf.all.arp_ignore=1")
    netns.sysctl([f"net.{setting}" for setting in settings], namespace=router(bed))
    for cluster, (device, four, six) in ROUTER.items():
        link = [f"link add r-{device} type veth peer name {device} netns {router(bed)}"]
        netns.ip([*link, f"link set r-{device} master br0 up"], namespace=bed.layout.switch)
        own = [f"addr add {four}/32 dev {device}", f"addr add {six}/64 dev {device} nodad", f"link set {device} up"]
        netns.ip([*own, f"route add 172.18.{cluster[-1]}.0/24 dev {device}"], namespace=router(bed))
    for (cluster, other, _), (_, four, six) in zip(PAIRS, ROUTER.values(), strict=True):
        for node in ("node1", "node2"):
            own = [f"addr add {node_ip(cluster, node)}/64 dev eth0 nodad"]
            four_ways = [f"route add 172.18.{other[-1]}.{last} via {four} dev eth0" for last in (11, 12)]
            six_ways = [f"route add fd00:18:{other[-1]}::/64 via {six}"]
            netns.ip([*own, *four_ways, *six_ways], namespace=bed.layout.node(cluster, node))


def node_ip(cluster: str, node: str) -> str:
    return f"fd00:18:{cluster[-1]}::1{node[-1]}"


def give_ipv6(bed: Testbed) -> None:
    """The nodes' records have IPv6 addresses too; those of cluster2's pods name the nodes by these."""
    for cluster in PODS:
        objects = bed.kubelet(cluster).objects
        for node in objects.list("Node"):
            address = node_ip(cluster, node["metadata"]["name"])
            node["status"]["addresses"].append({"type": "InternalIP", "address": address})
            objects.write(node)
        for pod in objects.list("Pod") if cluster == "cluster2" else ():
            pod["status"]["hostIP"] = node_ip(cluster, pod["spec"]["nodeName"])
            objects.write(pod)


class Transfer:
    """From the first pod to the second, until it is left; `goes_on` waits for another megabyte."""

    def __init__(self, here: str, there: str, address: str) -> None:
        server = netns.inside(there, partial(socket.create_server, (address, 0)))
        with closing(server):
            self._client = netns.inside(here, socket.socket)
            self._client.settimeout(60)
            self._client.connect(server.getsockname())
            self._accepted, _ = server.accept()
        self._accepted.settimeout(60)
        self._stop, self._arrived = threading.Event(), 0
        self._threads = [threading.Thread(target=each) for each in (self._send, self._receive)]

    def __enter__(self) -> "Transfer":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._client.close()
        self._accepted.close()

    def goes_on(self) -> None:
        wanted = self._arrived + (1 << 20)
        until(lambda: self._arrived >= wanted, "a transfer stands still")

    def _send(self) -> None:
        with suppress(TimeoutError):
            while not self._stop.is_set():
                self._client.sendall(bytes(1 << 16))
        self._client.shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        with suppress(TimeoutError):
            while data := self._accepted.recv(1 << 20):
                self._arrived += len(data)


def inner(bed: Testbed, cluster: str, other: str) -> set[str]:
    """The size that packets to the other cluster's node1 are kept to, whatever address it is known by."""
    lines = [line.split() for line in held(bed, "md_node", cluster)]
    own = [line for line in lines if line[0] in (f"172.18.{other[-1]}.11", node_ip(other, "node1"))]
    assert len(own) == 2
    return {word for line in own for word in line if word.startswith("tunnel_mtu")}


@pytest.mark.parametrize(("cluster", "other", "least"), PAIRS)
def test_what_a_router_says_is_followed_while_a_transfer_goes_on(
    beds: dict[str, Testbed], cluster: str, other: str, least: int
) -> None:
    bed = beds[cluster]
    here, there = (bed.layout.pod(name, "default", "rebel-base-1") for name in (cluster, other))
    wide, narrow = ({f"tunnel_mtu={size - OVERHEAD[UNDERLAYS[cluster]]}"} for size in (SIZE, least))
    kept_to, port = partial(inner, bed, cluster, other), ROUTER[other][0]
    with Transfer(here, there, PODS[other]) as transfer:
        transfer.goes_on()
        assert kept_to() == wide
        netns.ip([f"link set {port} mtu {least}"], namespace=router(bed))
        until(lambda: kept_to() == narrow, kept_to)
        transfer.goes_on()
        assert told_size(here, PODS[other], 1450) == least - OVERHEAD[UNDERLAYS[cluster]]
        plan = asked(bed, cluster, "node1", "/v1/plan")["routes"]
        reasons = {route["node"]: route["reason"] for route in plan if route["cluster"] == other}
        assert f"the way carries {least} of {SIZE} bytes" in reasons["node1"]
        netns.ip([f"link set {port} mtu {SIZE}"], namespace=router(bed))
        transfer.goes_on()
        bed.kill_part(f"{cluster}/daemon-node1")
        bed.start_parts([bed.part(f"{cluster}/daemon-node1")])
        until(lambda: asked(bed, cluster, "node1").get("events", {}).get("reconciled") is not None)
        transfer.goes_on()
        assert kept_to() == narrow, "the kernel remembers, and would send nothing larger"
