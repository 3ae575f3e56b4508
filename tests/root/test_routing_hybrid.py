"""Three clusters behind a router in mode hybrid; then BIRD on every node and on the router, from the file that
kind-clusters/bird/ has.

  br0  172.18.0.0/16 ──┬── cluster1: node1 172.18.1.11, node2 172.18.1.12      pods 10.0.0.0/24, 10.0.1.0/24
                       ├── cluster2: node1 172.18.2.11, node2 172.18.2.12      pods 20.0.0.0/24, 20.0.1.0/24
                  eth0 │ 172.18.0.254
                    router
                  eth1 │ 172.18.3.1      MTU 1400 at first, all others 1500: the router says so to one side only
  br1  172.18.3.0/24 ──┴── cluster3: node1 172.18.3.11, node2 172.18.3.12      pods 40.0.0.0/24, 40.0.1.0/24

  br2  cluster1/node1 eth1 ── eth1 cluster2/node1: a link of their own, for one test
"""

import json
import secrets
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

import pytest

from meshd.testbed import netns
from meshd.testbed.check import ensure_bpffs
from meshd.testbed.layout import BPFFS
from meshd.testbed.plan import CLUSTERS
from meshd.testbed.testbed import Testbed
from meshd.testbed.trust import ensure_certificates, write_peers
from meshd.testbed.underlay import veth_name
from tests.support.capture import capturing, is_fragment
from tests.support.netns import Namespace
from tests.support.routedbed import answers, asked, from_node, from_pod, held, nodes, told_size, tunnel_packets
from tests.support.waiting import until

pytestmark = pytest.mark.root
BIRD_CONF = Path(__file__).parents[2] / "kind-clusters" / "bird" / "bird.conf"
FIRST_PODS = {"cluster1": "10.0.0.1", "cluster2": "20.0.0.1", "cluster3": "40.0.0.1"}
POD2, POD3 = FIRST_PODS["cluster2"], FIRST_PODS["cluster3"]
DIRECT2, TUNNEL3 = {"cluster2": ("direct", "172.18.2.11")}, {"cluster3": ("tunnel", "172.18.3.11")}
SERVER_ON_NODE2 = "40.0.1.10"
TALK_DEADLINE_S = 20.0
TRANSFER = 2 << 20
CARRIED = {"cluster1": 1400, "cluster3": 1404}  # a veth takes four bytes more than it sends: a VLAN's
ROUTER_PORTS = {"eth0": ("br0", "172.18.0.254/16"), "eth1": ("br1", "172.18.3.1/24")}


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    flags = ("--routing-mode=hybrid", "--export-pod-cidrs")
    testbed = Testbed(f"h{secrets.token_hex(3)}", sorted(CLUSTERS), daemon_flags=flags)
    try:
        testbed.up(mesh=False)
        put_a_router_before_cluster3(testbed)
        start(testbed)
        until(lambda: all(asked(testbed, *node).get("state") == "ok" for node in nodes(testbed)))
        yield testbed
    finally:
        testbed.down()


def start(bed: Testbed) -> None:
    """As `up` does, but cluster after cluster: six daemons at once are much for a busy machine."""
    ensure_bpffs(BPFFS)
    ensure_certificates(bed.layout, bed.clusters)
    write_peers(bed.layout, bed.clusters)
    daemons = {name: part for name, part in bed.parts.items() if "/daemon-" in name}
    bed.start_parts(part for name, part in bed.parts.items() if name not in daemons)
    for cluster in bed.clusters:
        bed.start_parts(part for name, part in daemons.items() if name.startswith(cluster.name))


def router(bed: Testbed) -> str:
    return f"{bed.layout.prefix}router"


def hosts(bed: Testbed, cluster: str) -> dict[str, str]:
    """Namespaces of a cluster's nodes and control plane, with their addresses."""
    plan = CLUSTERS[cluster]
    found = {bed.layout.node(cluster, node.name): str(node.address) for node in plan.nodes}
    return found | {bed.layout.control_plane(cluster): str(plan.control_plane)}


def put_a_router_before_cluster3(bed: Testbed) -> None:
    netns.ip([f"netns add {router(bed)}"])
    netns.sysctl(["net.ipv4.ip_forward=1"], namespace=router(bed))
    commands = ["link add br1 type bridge", "link set br1 up"]
    commands += [f"link set c3-{host} master br1" for host in ("cp", "node1", "node2")]
    for device, (bridge, _) in ROUTER_PORTS.items():
        commands.append(f"link add r-{device} type veth peer name {device} netns {router(bed)}")
        commands.append(f"link set r-{device} master {bridge} up")
    netns.ip(commands, namespace=bed.layout.switch)
    for device, (_, address) in ROUTER_PORTS.items():
        netns.ip([f"addr add {address} dev {device}", f"link set {device} up"], namespace=router(bed))
    netns.ip(["link set eth1 mtu 1400"], namespace=router(bed))
    for namespace, address in hosts(bed, "cluster3").items():
        own = [f"addr add {address}/24 dev eth0", f"addr del {address}/16 dev eth0"]
        via = ["route del default", "route add default via 172.18.3.1"]
        netns.ip([own[1], own[0], via[1]], namespace=namespace)
    for cluster in ("cluster1", "cluster2"):
        for namespace in hosts(bed, cluster):
            netns.ip(["route add 172.18.3.0/24 via 172.18.0.254"], namespace=namespace)


def ways(bed: Testbed, cluster: str = "cluster1", node: str = "node1") -> dict[str, tuple[str, str]]:
    """Kind and next hop of the way to the node of the same name of each other cluster, by cluster."""
    routes = asked(bed, cluster, node, "/v1/plan").get("routes", ())
    found = [r for r in routes if r["cluster"] != cluster and r["node"] == node and ":" not in r["prefix"]]
    return {r["cluster"]: (r["kind"], r["via"]) for r in found}


def wait_for(
    bed: Testbed, expected: dict[str, tuple[str, str]], cluster: str = "cluster1", node: str = "node1"
) -> None:
    until(lambda: expected.items() <= ways(bed, cluster, node).items(), lambda: ways(bed, cluster, node))


@contextmanager
def talking(bed: Testbed, *addresses: str) -> Iterator[None]:
    """A connection from a pod of cluster1 to each address, used over all that happens in the block, and after it."""
    pod = bed.layout.pod("cluster1", "default", "rebel-base-1")
    make = partial(socket.create_connection, timeout=TALK_DEADLINE_S)
    connections = [netns.inside(pod, partial(make, (address, 8080))) for address in addresses]
    stop, rounds = threading.Event(), [0]

    def talk() -> None:
        files = [connection.makefile("rwb") for connection in connections]
        while not stop.wait(0.02):
            for file in files:
                file.write(b"%d\n" % rounds[0])
                file.flush()
                assert file.readline().split()[1] == b"%d" % rounds[0]
            rounds[0] += 1

    with ThreadPoolExecutor(1) as thread, ExitStack() as stack:
        for connection in connections:
            stack.enter_context(connection)
        talks = thread.submit(talk)
        try:
            yield
            enough = rounds[0] + 5
            until(lambda: talks.done() or rounds[0] > enough, "the connections go on")
        finally:
            stop.set()
        talks.result()


def requests(bed: Testbed, address: str, number: int = 20) -> None:
    """Requests from a pod of cluster1: all are answered, and come with the pod's own address."""
    found = answers(from_pod(bed, "cluster1/rebel-base-1", address, 8080, f"--requests={number}"))
    assert (found.failures, set(found.peers)) == ([], {"10.0.0.1"})


def test_each_pair_goes_by_what_lies_between(bed: Testbed) -> None:
    wait_for(bed, DIRECT2 | TUNNEL3)
    wait_for(bed, {"cluster1": ("tunnel", "172.18.1.11"), "cluster2": ("tunnel", "172.18.2.11")}, "cluster3")
    before = tunnel_packets(bed)
    requests(bed, POD2)
    assert tunnel_packets(bed) - before < 40, "probes only"
    requests(bed, POD3)
    assert tunnel_packets(bed) - before > 60


def send(client: socket.socket) -> None:
    client.sendall(bytes(TRANSFER))
    client.shutdown(socket.SHUT_WR)


def transferred(here: tuple[str, str], there: tuple[str, str]) -> int:
    """Bytes that arrived of TRANSFER sent from one pod to the other: each its namespace and its address."""
    with (
        closing(netns.inside(there[0], partial(socket.create_server, (there[1], 0)))) as server,
        closing(netns.inside(here[0], socket.socket)) as client,
        ThreadPoolExecutor(1) as thread,
    ):
        client.settimeout(TALK_DEADLINE_S)
        client.connect(server.getsockname())
        accepted, _ = server.accept()
        with closing(accepted):
            accepted.settimeout(TALK_DEADLINE_S)
            sent = thread.submit(send, client)
            arrived = sum(len(data) for data in iter(lambda: accepted.recv(1 << 20), b""))
            sent.result()
    return arrived


def test_a_narrow_router_on_the_way_is_no_black_hole(bed: Testbed) -> None:
    """Both sides find out, and keep to it: TCP by its MSS, the rest by ICMP, the nodes' own packets by their routes."""
    try:
        pods = [(bed.layout.pod(name, "default", "rebel-base-1"), FIRST_PODS[name]) for name in CARRIED]
        for cluster, other in (("cluster1", "cluster3"), ("cluster3", "cluster1")):
            found, said = partial(because, bed, cluster), f"the way carries {CARRIED[cluster]} of 1500 bytes"
            until(lambda f=found, o=other, s=said: s in f().get(o, ""), found)  # type: ignore[misc]
        assert "carries" not in because(bed, "cluster1")["cluster2"]
        for address in ("172.18.3.11", "172.18.3.12"):
            until(lambda a=address: any(a in line and "tunnel_mtu=1350" in line for line in held(bed, "md_node")))  # type: ignore[misc]
        with capturing(Namespace(bed.layout.switch), "r-eth0") as capture:
            for here, there, carried in zip(pods, pods[::-1], CARRIED.values(), strict=True):
                assert transferred(here, there) == TRANSFER
                assert told_size(here[0], there[1], 1400) == carried - 50
            assert not [frame for frame in capture.seen() if is_fragment(frame)]
        own = netns.output(["ip", "route", "show", "40.0.0.0/24"], namespace=bed.layout.node("cluster1", "node1"))
        assert "mtu 1350" in own
        assert asked(bed, "cluster1", "node1")["state"] == "ok"
    finally:
        netns.ip(["link set eth1 mtu 1500"], namespace=router(bed))


def because(bed: Testbed, cluster: str, node: str = "node1") -> dict[str, str]:
    """The reasons of the ways to the node of the same name of each other cluster, by cluster."""
    routes = asked(bed, cluster, node, "/v1/plan").get("routes", ())
    return {r["cluster"]: r["reason"] for r in routes if r["cluster"] != cluster and r["node"] == node}


def test_a_link_goes_and_comes_while_connections_live(bed: Testbed) -> None:
    """A link of their own between two nodes is used while it is there; then the common one."""
    ends = {"c1": ("cluster1", "172.18.1.11", "172.18.2.11"), "c2": ("cluster2", "172.18.2.11", "172.18.1.11")}
    netns.ip(["link add br2 type bridge", "link set br2 up"], namespace=bed.layout.switch)
    for port, (cluster, own, other) in ends.items():
        node = bed.layout.node(cluster, "node1")
        netns.ip(
            [f"link add {port}-eth1 type veth peer name eth1 netns {node}", f"link set {port}-eth1 master br2 up"],
            namespace=bed.layout.switch,
        )
        netns.ip([f"addr add {own}/32 dev eth1", "link set eth1 up", f"route add {other} dev eth1"], namespace=node)
    with talking(bed, POD2, POD3):
        for cluster, other in (("cluster1", "cluster2"), ("cluster2", "cluster1")):
            until(lambda c=cluster, o=other: devices(bed, c)[o] == "eth1", lambda c=cluster: devices(bed, c))  # type: ignore[misc]
        requests(bed, POD2)
        netns.ip(["link set eth1 down"], namespace=bed.layout.node("cluster1", "node1"))
        until(lambda: devices(bed, "cluster1")["cluster2"] == "eth0", lambda: devices(bed, "cluster1"))
        netns.ip(["link del eth1"], namespace=bed.layout.node("cluster2", "node1"))
        until(lambda: devices(bed, "cluster2")["cluster1"] == "eth0", lambda: devices(bed, "cluster2"))
        requests(bed, POD2)


def devices(bed: Testbed, cluster: str) -> dict[str, str]:
    """Through which device node1 of a cluster reaches node1 of each other one, by the kernel's map."""
    node, found = bed.layout.node(cluster, "node1"), {}
    for remote, (kind, _) in ways(bed, cluster).items():
        shown = netns.output(["ip", "-j", "route", "get", FIRST_PODS[remote]], namespace=node)
        found[remote] = json.loads(shown)[0]["dev"] if kind == "direct" else kind
    return found


def test_a_node_that_moves_to_our_subnet_is_reached_directly(bed: Testbed) -> None:
    node = bed.layout.node("cluster3", "node1")
    with talking(bed, POD3, POD2):
        netns.ip(["link set c3-node1 master br0"], namespace=bed.layout.switch)
        move = [
            "addr add 172.18.3.11/16 dev eth0",
            "addr del 172.18.3.11/24 dev eth0",
            "route replace default via 172.18.0.254",
        ]
        netns.ip(move, namespace=node)
        for other in hosts(bed, "cluster3"):
            if other != node:
                netns.ip(["route add 172.18.3.11 via 172.18.3.1"], namespace=other)
                address = hosts(bed, "cluster3")[other]
                netns.ip([f"route add {address} via 172.18.0.254"], namespace=node)
        netns.ip(["route add 172.18.3.11 dev eth0"], namespace=router(bed))
        for cluster in ("cluster1", "cluster2"):
            for namespace in hosts(bed, cluster):
                netns.ip(["route add 172.18.3.11 dev eth0"], namespace=namespace)
        wait_for(bed, DIRECT2 | {"cluster3": ("direct", "172.18.3.11")})
        wait_for(bed, {"cluster1": ("direct", "172.18.1.11")}, "cluster3")
        requests(bed, POD3)


def bird(bed: Testbed, namespace: str, folder: Path) -> "subprocess.Popen[bytes]":
    name = namespace.removeprefix(bed.layout.prefix)
    argv = ["bird", "-f", "-c", str(BIRD_CONF), "-s", str(folder / f"{name}.ctl"), "-P", str(folder / f"{name}.pid")]
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(argv, stdout=log, stderr=log, preexec_fn=netns.entering(namespace))


def give_ipv6(bed: Testbed, cluster: str, node: str, address: str) -> str:
    """An IPv6 PodCIDR for the node, and an address of it for its first pod, as a dual-stack CNI gives them; the pod's
    network namespace.
    """
    kubelet, host, v6 = bed.kubelet(cluster), bed.layout.node(cluster, node), IPv6Address(address)
    record = kubelet.objects.get("Node", node, "")
    record["spec"]["podCIDRs"] = [record["spec"]["podCIDR"], str(IPv6Network((v6, 64), strict=False))]
    kubelet.objects.write(record)
    pod = next(pod for pod in kubelet.objects.list("Pod") if pod["spec"]["nodeName"] == node)
    namespace = kubelet.namespace(pod)
    port = veth_name(namespace)
    mac = json.loads(netns.output(["ip", "-j", "link", "show", port], namespace=host))[0]["address"]
    netns.ip([f"route add {v6} dev {port}"], namespace=host)
    netns.ip(
        [
            f"addr add {v6}/128 dev eth0 nodad",
            f"neigh add fe80::1 lladdr {mac} dev eth0",
            f"route add default via fe80::1 dev eth0 src {v6}",
        ],
        namespace=namespace,
    )
    pod["status"]["podIPs"] = [{"ip": pod["status"]["podIP"]}, {"ip": address}]
    kubelet.objects.write(pod)
    return namespace


def spoken(here: tuple[str, str], there: tuple[str, str]) -> str:
    """A connection from the first pod's namespace to the second's address: whom the second saw."""
    with (
        closing(netns.inside(there[0], partial(socket.create_server, (there[1], 0), family=socket.AF_INET6))) as server,
        closing(netns.inside(here[0], partial(socket.socket, socket.AF_INET6))) as client,
    ):
        client.settimeout(TALK_DEADLINE_S)
        client.connect(server.getsockname())
        accepted, peer = server.accept()
        accepted.close()
        return str(peer[0])


def test_with_bird_the_routers_carry_pods_packets_too(bed: Testbed, tmp_path: Path) -> None:
    """The daemons export, BIRD announces; what it learns is used, and no longer when it has ended. IPv6 too, although
    no node has an IPv6 address of its own: the next hops are link-local.
    """
    node = bed.layout.node("cluster1", "node1")
    sixes = {"cluster1": ("node1", "fd00:10:1::6"), "cluster3": ("node2", "fd00:10:3:1::6")}
    pods = [(give_ipv6(bed, name, *six), six[1]) for name, six in sixes.items()]
    netns.sysctl(["net.ipv6.conf.all.forwarding=1"], namespace=router(bed))
    exports = ["ip", "-6", "route", "show", "table", "110"]
    until(lambda: "unreachable fd00:10:1::/64" in netns.output(exports, namespace=node))
    exported = netns.output(["ip", "route", "show", "table", "110"], namespace=node)
    assert exported.split() == ["unreachable", "10.0.0.0/24", "proto", "109"]
    with ExitStack() as stack, talking(bed, POD2, POD3):
        for namespace in (*(bed.layout.node(*each) for each in nodes(bed)), router(bed)):
            child = bird(bed, namespace, tmp_path)
            stack.callback(child.wait)
            stack.callback(child.terminate)
        wait_for(bed, {"cluster3": ("direct", "172.18.0.254")}, node="node2")
        wait_for(bed, {"cluster1": ("direct", "172.18.3.1")}, "cluster3", "node2")
        shown = next(r for r in asked(bed, "cluster1", "node2", "/v1/plan")["routes"] if r["prefix"] == "40.0.1.0/24")
        # What the way carries may still stand behind it, as the test of a narrow router left it.
        assert shown["reason"].partition(";")[0] == "learned from the routing daemon, via 172.18.0.254"
        assert asked(bed, "cluster1", "node2")["routing"]["learned"] >= 4
        until(lambda: six_ways(bed) == {"fd00:10:3:1::/64": "direct"}, lambda: six_ways(bed))
        until(
            lambda: six_ways(bed, "cluster3", "node2") == {"fd00:10:1::/64": "direct"},
            lambda: six_ways(bed, "cluster3", "node2"),
        )
        for here, there in (pods, pods[::-1]):
            assert spoken(here, there) == here[1]
        before = tunnel_packets(bed)
        requests(bed, SERVER_ON_NODE2)
        assert not from_node(bed, SERVER_ON_NODE2, 8080, 5).failures, "the node's own packets"
        assert tunnel_packets(bed) - before < 40, "probes only"
        assert "40.0.1.0/24" not in netns.output(
            ["ip", "route", "show", "table", "all", "proto", "109"], namespace=node
        )
        stack.close()
        wait_for(bed, {"cluster3": ("tunnel", "172.18.3.12")}, node="node2")
        requests(bed, SERVER_ON_NODE2)
    until(lambda: six_ways(bed) == {"fd00:10:3:1::/64": "tunnel"}, lambda: six_ways(bed))
    assert spoken(*pods) == pods[0][1]


def six_ways(bed: Testbed, cluster: str = "cluster1", node: str = "node1") -> dict[str, str]:
    """How IPv6 PodCIDRs of other clusters are reached."""
    routes = asked(bed, cluster, node, "/v1/plan").get("routes", ())
    return {r["prefix"]: r["kind"] for r in routes if r["cluster"] != cluster and ":" in r["prefix"]}
