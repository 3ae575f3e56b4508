"""Ways between the nodes of two clusters, on the testbed with everything running.

switch ── br0 172.18.0.1
  ├── cluster1-node1 172.18.1.11 ── rebel-base-1 10.0.0.1, …      kindnet's masquerade, strict rp_filter
  ├── cluster1-node2 172.18.1.12 ── frontend-1 10.0.1.1, …
  └── cluster2-node1 172.18.2.11 ── rebel-base-1 20.0.0.1, …      cluster2-node2 …
"""

import json
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.testbed import netns
from meshd.testbed.layout import BPFFS
from meshd.testbed.process import Place
from meshd.testbed.testbed import Testbed
from tests.support.routedbed import answers, asked, from_node, from_pod, held, set_mode, tunnel_packets
from tests.support.waiting import until

pytestmark = pytest.mark.root
DEADLINE_S = 30.0
GLOBAL = "io.cilium/global-service"
FRONTEND, REMOTE_POD = "30.1.1.1", "20.0.0.1"
NODES = [(cluster, node) for cluster in ("cluster1", "cluster2") for node in ("node1", "node2")]


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    testbed = Testbed(f"r{secrets.token_hex(3)}")
    try:
        testbed.up(mesh=False)
        for cluster, node in NODES:
            strict = [f"net.ipv4.conf.{device}.rp_filter=1" for device in ("all", "default", "eth0")]
            netns.sysctl(strict, namespace=testbed.layout.node(cluster, node))
        testbed.up()
        for cluster in ("cluster1", "cluster2"):
            testbed.annotate(cluster, "Service", "rebel-base", GLOBAL, "true")
        until(lambda: all(balanced(testbed, *node) for node in NODES))
        yield testbed
    finally:
        testbed.down()


def balanced(bed: Testbed, cluster: str, node: str) -> bool:
    """The service is there and sockets of the node are balanced too."""
    status = asked(bed, cluster, node)
    return status.get("state") == "ok" and status.get("services") == 1 and "node_netns=0" in held(bed, "md_cfg")[0]


def test_the_node_itself_reaches_remote_pods_with_its_own_address(bed: Testbed) -> None:
    found = from_node(bed, REMOTE_POD, 8080, 10)
    assert not found.failures
    assert set(found.peers) == {"172.18.1.11"}


def test_sockets_of_the_node_are_balanced_over_both_clusters(bed: Testbed) -> None:
    found = from_node(bed, FRONTEND, 80, 80)
    assert not found.failures
    assert set(found.by_cluster) == {"cluster1", "cluster2"}


def test_the_kernel_shows_what_is_ours(bed: Testbed) -> None:
    node = bed.layout.node("cluster1", "node1")
    routes = netns.output(["ip", "-o", "route", "show", "proto", "109"], namespace=node).splitlines()
    assert sorted(" ".join(line.split()[:3]) for line in routes) == [
        "20.0.0.0/24 dev md_vxlan",
        "20.0.1.0/24 dev md_vxlan",
    ]
    rules = netns.output(["ip", "rule"], namespace=node).splitlines()
    assert len(rules) == 3, "one more would cost every packet of the node its short way"


def test_a_route_of_ours_that_is_lost_is_somebody_elses_to_keep(bed: Testbed) -> None:
    """Foreign routes, in our table too, are neither used as ours nor removed."""
    node = bed.layout.node("cluster1", "node2")
    netns.ip(
        ["route add 198.51.100.0/24 via 172.18.0.1 table 109", "route add 203.0.113.0/24 via 172.18.0.1"],
        namespace=node,
    )
    bed.kill_part("cluster1/daemon-node2")
    bed.start_parts([bed.part("cluster1/daemon-node2")])
    until(lambda: asked(bed, "cluster1", "node2").get("state") == "ok")
    shown = netns.output(["ip", "route", "show", "table", "all"], namespace=node)
    assert "198.51.100.0/24 via 172.18.0.1 dev eth0 table 109" in shown
    assert "203.0.113.0/24 via 172.18.0.1 dev eth0" in shown


@pytest.mark.parametrize("mode", ["direct", "hybrid"])
def test_on_a_shared_l2_pods_reach_each_other_without_a_tunnel(bed: Testbed, mode: str) -> None:
    set_mode(bed, mode)
    try:
        before = tunnel_packets(bed)
        found = answers(from_pod(bed, "cluster1/frontend-1", REMOTE_POD, 8080, "--requests=20"))
        assert not found.failures
        assert set(found.peers) == {"10.0.1.1"}, "no masquerade"
        own = from_node(bed, REMOTE_POD, 8080, 10)
        assert not own.failures
        assert set(own.peers) == {"172.18.1.11"}
        assert tunnel_packets(bed) - before < 20, "probes only"
        routes = netns.output(
            ["ip", "-o", "route", "show", "proto", "109"], namespace=bed.layout.node("cluster1", "node1")
        )
        assert "20.0.0.0/24 via 172.18.2.11 dev eth0" in routes
    finally:
        set_mode(bed, None)


def test_connections_live_while_a_peer_goes_from_tunnel_to_direct_and_back(bed: Testbed) -> None:
    """Each side changes by itself and at its own time."""
    running = from_pod(bed, "cluster1/frontend-1", FRONTEND, 80, "--seconds=6", "--rate=100", "--hold=8")
    for mode in ("direct", None, "hybrid", None):
        set_mode(bed, mode, ("cluster1",))
        set_mode(bed, mode, ("cluster2",))
    found = answers(running)
    assert {request.error for request in found.held} == {None}
    assert min(request.echoes for request in found.held) > 20
    assert not found.failures


def test_the_underlays_mtu_is_followed(bed: Testbed) -> None:
    node = bed.layout.node("cluster1", "node1")

    def mtu() -> int:
        return int(json.loads(netns.output(["ip", "-j", "link", "show", "md_vxlan"], namespace=node))[0]["mtu"])

    assert mtu() == 1450
    netns.ip(["link set eth0 mtu 1400"], namespace=node)
    try:
        until(lambda: mtu() == 1350)
        until(lambda: all("tunnel_mtu=1350" in line for line in held(bed, "md_node") if "remote=True" in line))
        until(lambda: "underlay_mtu=1400" in held(bed, "md_cfg")[0])
    finally:
        netns.ip(["link set eth0 mtu 1500"], namespace=node)
    until(lambda: mtu() == 1450)


@pytest.mark.parametrize("loss", ["link set md_vxlan down", "route flush table main proto 109"])
def test_routes_that_went_with_their_device_or_by_hand_come_back(bed: Testbed, loss: str) -> None:
    """The kernel drops the routes of a device that goes down, and says nothing of them."""
    node = bed.layout.node("cluster1", "node1")

    def routes() -> str:
        return netns.output(["ip", "-o", "route", "show", "proto", "109"], namespace=node)

    # Routes keep to a smaller MTU until probes have found that the way carries more again.
    until(lambda: routes().count("dev md_vxlan") == 2 and "mtu" not in routes(), routes)
    before = routes()
    netns.ip([loss], namespace=node)
    until(lambda: routes() == before, routes)
    assert not from_node(bed, REMOTE_POD, 8080, 2).failures


def test_somebody_elses_route_for_a_remote_prefix_does_not_take_it_away(bed: Testbed) -> None:
    """It comes while ours stands, and would be found before it in the main table."""
    node = bed.layout.node("cluster1", "node1")

    def way() -> str:
        return netns.output(["ip", "route", "get", "20.0.0.1"], namespace=node)

    assert "dev md_vxlan" in way()
    netns.ip(["route add 20.0.0.0/24 via 172.18.0.1"], namespace=node)
    try:
        until(lambda: "dev md_vxlan" in way() and "table 109" in way(), way)
    finally:
        netns.ip(["route del 20.0.0.0/24 via 172.18.0.1"], namespace=node)
    until(lambda: "dev md_vxlan" in way() and "table 109" not in way(), way)


def test_plan_and_status_say_the_way_and_why(bed: Testbed) -> None:
    argv = [sys.executable, "-m", "meshd", "plan", "--run-dir", str(bed.layout.run), "cluster2", "-o", "json"]
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    shown = json.loads(result.stdout)
    route = next(route for entry in shown for route in entry["routes"] if route["prefix"] == "20.0.0.0/24")
    assert (route["kind"], route["device"], route["via"]) == ("tunnel", "md_vxlan", "172.18.2.11")
    assert route["reason"] == "cluster2/node1 by vxlan:8473 on md_vxlan: mode tunnel"
    assert asked(bed, "cluster1", "node1")["routing"]["routes"] == {"local": 1, "same-cluster": 1, "tunnel": 2}


def test_a_flow_is_explained_from_its_node(bed: Testbed) -> None:
    argv = [sys.executable, "-m", "meshd", "explain", "flow", "cluster1/default/frontend-1", f"{REMOTE_POD}:8080"]
    result = subprocess.run([*argv, "--run-dir", str(bed.layout.run)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == f"from {bed.layout.instance('cluster1', 'node2')}"
    assert "way: tunnel dev md_vxlan via 172.18.2.11: cluster2/node1 by vxlan:8473 on md_vxlan: mode tunnel" in lines
    assert [line for line in lines if line.startswith("source default/frontend-1 (10.0.1.1, cluster1")]
    assert [line for line in lines if "cluster2 (fresh): PodCIDR 20.0.0.0/24 of node node1: BELIEVED" in line]
    assert len([line for line in lines if line.startswith("policy, ")]) == 2


def snapshot(bed: Testbed, cluster: str, node: str) -> dict[str, str]:
    """What stands on a node, without counters and what changes by itself."""
    namespace = bed.layout.node(cluster, node)
    commands = {
        "links": "ip -o link show",
        "routes": "ip route show table all",
        "routes6": "ip -6 route show table all",
        "rules": "ip rule",
        "rules6": "ip -6 rule",
        "nft": "nft -s list ruleset",
    }
    shown = {name: netns.output(command.split(), namespace=namespace) for name, command in commands.items()}
    devices = [line.split(": ")[1].partition("@")[0] for line in shown["links"].splitlines()]
    for device in devices:
        for side in ("ingress", "egress"):
            filters = ["tc", "filter", "show", "dev", device, side]
            shown[f"{device} {side}"] = netns.output(filters, namespace=namespace)
    return shown


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ([], r"daemon.lock is held by process \d+: stop that one first"),
        (["--instance=other"], r"meshd:\S*cluster1-node2 serves this node, and a node has one instance: stop that one"),
        (["--instance=other", "--tunnel=vxlan:4790"], "serves this node"),
    ],
)
def test_a_second_daemon_on_a_node_is_refused_and_touches_nothing(bed: Testbed, flags: list[str], why: str) -> None:
    before = snapshot(bed, "cluster1", "node2")
    running = bed.part("cluster1/daemon-node2")
    done = subprocess.run(
        [*running.argv, *flags], capture_output=True, text=True, check=False, preexec_fn=running.place.enter
    )
    assert done.returncode in (2, 3)
    assert re.search(why, done.stderr), done.stderr
    assert snapshot(bed, "cluster1", "node2") == before
    assert not (BPFFS / "meshd" / "other").exists()
    assert asked(bed, "cluster1", "node2").get("state") == "ok"


def test_uninstall_by_a_wrong_name_leaves_the_one_that_is_there(bed: Testbed) -> None:
    before = snapshot(bed, "cluster1", "node2")
    argv = [sys.executable, "-m", "meshd", "uninstall", "--instance=other", f"--bpffs={BPFFS}"]
    place = bed.part("cluster1/daemon-node2").place
    done = subprocess.run(argv, capture_output=True, text=True, check=False, preexec_fn=place.enter)
    assert done.returncode == 0
    assert "cluster1-node2 is on this node" in done.stderr
    assert snapshot(bed, "cluster1", "node2") == before


def test_uninstall_leaves_nothing_of_ours_and_all_of_the_others(bed: Testbed) -> None:
    """The node is not of the mesh any more, and is again. A foreign route in our table is kept with all others."""
    node = bed.layout.node("cluster1", "node2")
    instance = bed.layout.instance("cluster1", "node2")
    argv = [sys.executable, "-m", "meshd", "uninstall", f"--instance={instance}", f"--bpffs={BPFFS}"]
    argv += [f"--run-dir={bed.layout.run}"]
    place = Place(node, bed.cgroups / "cluster1-node2")
    netns.ip(["route replace 198.51.100.0/24 via 172.18.0.1 table 109"], namespace=node)

    def run() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(argv, capture_output=True, text=True, check=False, preexec_fn=place.enter)

    refused = run()
    assert (refused.returncode, "stop it first" in refused.stderr) == (1, True)
    before = snapshot(bed, "cluster1", "node2")
    bed.kill_part("cluster1/daemon-node2")
    assert snapshot(bed, "cluster1", "node2") == before, "ending the daemon takes nothing down"
    netns.ip(["route add unreachable 10.0.1.0/24 table 110 proto 109"], namespace=node)  # as export_pod_cidrs has it
    done = run()
    assert done.returncode == 0, done.stderr
    after = snapshot(bed, "cluster1", "node2")
    assert after.pop("nft") == before["nft"]
    assert not [text for text in after.values() if "meshd:" in text or "md_" in text or "proto 109" in text]
    assert "198.51.100.0/24 via 172.18.0.1 dev eth0 table 109" in after["routes"]
    ours = ("md_vxlan", "proto 109")
    kept = {line for line in before["routes"].splitlines() if not any(word in line for word in ours)}
    assert kept == set(after["routes"].splitlines())
    assert not (BPFFS / "meshd" / instance).exists()
    hooks = subprocess.check_output(["bpftool", "cgroup", "show", str(place.cgroup)], text=True)
    assert len(hooks.splitlines()) <= 1, hooks
    again = run()
    assert again.returncode == 0
    assert "none was there" in again.stdout
    found = answers(from_pod(bed, "cluster1/frontend-1", "10.0.0.1", 8080, "--requests=3"))
    assert not found.failures, "the CNI's own traffic goes on"
    bed.start_parts([bed.part("cluster1/daemon-node2")])
    until(lambda: asked(bed, "cluster1", "node2").get("state") == "ok")
    found = answers(from_pod(bed, "cluster1/frontend-1", REMOTE_POD, 8080, "--requests=3"))
    assert not found.failures, "installed again"


def test_a_narrow_place_on_the_way_is_found_shown_and_kept_to(bed: Testbed) -> None:
    """The switch's port to a node of cluster2 drops what is larger than 1400 bytes, and says nothing. After the others:
    until the next probes the ways stay as they were found.
    """
    paths = ("cluster1", "node1"), "cluster2"

    def presence() -> dict[str, object]:
        clusters = asked(bed, *paths[0]).get("clusters", ())
        return next((c["presence"] for c in clusters if c["cluster"] == paths[1]), {})

    until(lambda: presence().get("path_mtu") == 1500, presence)
    netns.ip(["link set c2-node1 mtu 1400"], namespace=bed.layout.switch)
    try:
        bed.kill_part("cluster1/daemon-node1")
        bed.start_parts([bed.part("cluster1/daemon-node1")])
        until(lambda: presence().get("path_mtu") == 1400, presence)
        until(lambda: any("172.18.2.11" in line and "tunnel_mtu=1350" in line for line in held(bed, "md_node")))
        assert any("172.18.2.12" in line and "tunnel_mtu=1450" in line for line in held(bed, "md_node"))
        words = [sys.executable, "-m", "meshd", "node", "list", "--run-dir", str(bed.layout.run), "-o", "json"]
        words.append(f"--instance={bed.layout.instance(*paths[0])}")
        shown = subprocess.run(words, capture_output=True, check=False)
        found = {row["name"]: row["path_mtu"] for row in json.loads(shown.stdout) if row["cluster"] == "cluster2"}
        assert found == {"node1": 1400, "node2": 1500}
    finally:
        netns.ip(["link set c2-node1 mtu 1500"], namespace=bed.layout.switch)


def test_nothing_of_this_is_in_the_machines_own_namespace(bed: Testbed) -> None:
    assert not [name for name in (path.name for path in Path("/sys/class/net").iterdir()) if name.startswith("md_")]
