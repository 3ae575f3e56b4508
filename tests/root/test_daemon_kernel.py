"""A real daemon on a node of the testbed, stopped and started again, seen from outside: strace and the kernel's maps.

cluster1-node2 ── the daemon ── bpffs, cgroup, md_vxlan, veths of frontend-1, x-wing, inventory-1
cluster2 ──────── its proxy, a real remote
"""

import json
import re
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from datapath.layout import Endpoint, EndpointFlag
from datapath.maps import Maps
from datapath.pins import Pins
from meshd.daemon.kernel import MAPS
from meshd.socket import SocketError, get
from meshd.testbed import netns
from meshd.testbed.layout import BPFFS
from meshd.testbed.parts import socket_path
from meshd.testbed.testbed import Testbed
from tests.support.netns import Namespace
from tests.support.waiting import until

pytestmark = pytest.mark.root
DAEMON = "cluster1/daemon-node2"
GLOBAL = "io.cilium/global-service"
EMPTY = "30.1.77.1"
DEADLINE_S = 30.0
BPF_WRITES = re.compile(
    r"bpf\(BPF_(MAP_UPDATE|MAP_DELETE|MAP_CREATE|PROG_LOAD|PROG_ATTACH|LINK_CREATE|LINK_UPDATE|OBJ_PIN)"
)
NETLINK_WRITES = re.compile(r"nlmsg_type=RTM_(NEW|DEL|SET)\w+, nlmsg_flags=NLM_F_REQUEST")


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    testbed = Testbed(f"d{secrets.token_hex(3)}")
    try:
        testbed.up()
        for cluster in ("cluster1", "cluster2"):
            testbed.annotate(cluster, "Service", "rebel-base", GLOBAL, "true")
        until(lambda: status(testbed).get("services") == 1)
        yield testbed
    finally:
        testbed.down()


def status(bed: Testbed) -> dict[str, Any]:
    """What the daemon says, empty if it does not answer."""
    try:
        answer: dict[str, Any] = get(socket_path(bed.layout, "cluster1", "node2", "daemon"), "/v1/status")
    except SocketError:
        return {}
    return answer


def reconciled(bed: Testbed) -> bool:
    return bool(status(bed).get("events", {}).get("reconciled"))


def held(bed: Testbed) -> dict[str, dict[bytes, bytes]]:
    """Everything in the pinned maps."""
    with Maps(Pins(BPFFS, bed.layout.instance("cluster1", "node2")).folder) as maps:
        return {name: maps.dump(name) for name in (*MAPS, "md_endpoint")}


def test_what_the_cluster_says_is_in_the_kernel(bed: Testbed) -> None:
    until(lambda: status(bed).get("state") == "ok")
    until(lambda: len(held(bed)["md_be4"]) == 4)
    counts = {name: len(entries) for name, entries in held(bed).items()}
    assert counts["md_svc4"] == 5
    assert counts["md_endpoint"] == 3
    assert counts["md_cidrs"] == 2
    assert counts["md_ipcache"] == 10


def test_a_restart_with_nothing_changed_writes_nothing(bed: Testbed, tmp_path: Path) -> None:
    until(lambda: reconciled(bed) and len(held(bed)["md_be4"]) == 4)
    before = held(bed)
    bed.kill_part(DAEMON)
    until(lambda: not status(bed))
    part, trace = bed.part(DAEMON), tmp_path / "trace"
    argv = ["strace", "-f", "-qq", "-s", "64", "-e", "trace=bpf,sendto,sendmsg", "-o", str(trace), *part.argv]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, preexec_fn=part.place.enter, cwd="/")
        try:
            until(lambda: reconciled(bed))
        finally:
            _end(process)
    assert held(bed) == before
    lines = trace.read_text(errors="replace").splitlines()
    assert [line for line in lines if "BPF_MAP_LOOKUP" in line], "strace saw the maps being read"
    assert [line for line in lines if "RTM_GET" in line], "strace saw netlink being asked"
    assert [line for line in lines if BPF_WRITES.search(line)] == []
    assert [line for line in lines if NETLINK_WRITES.search(line)] == []
    assert status(bed) == {}
    bed.start_parts([part])


def test_killed_at_any_point_of_its_start_the_next_one_adopts_what_is_there(bed: Testbed, tmp_path: Path) -> None:
    until(lambda: reconciled(bed) and len(held(bed)["md_be4"]) == 4)
    before = held(bed)
    bed.kill_part(DAEMON)
    part = bed.part(DAEMON)
    for patience_s in (0.5, 1.5, 3.0):
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(part.argv, stdout=log, stderr=log, preexec_fn=part.place.enter, cwd="/")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(patience_s)
        process.kill()
        process.wait()
        assert held(bed) == before
    bed.start_parts([part])
    until(lambda: status(bed).get("state") == "ok")
    assert held(bed) == before


def test_pods_of_the_node_come_and_go(bed: Testbed) -> None:
    bed.add_pod("cluster1", "late", like="x-wing")
    until(lambda: len(held(bed)["md_endpoint"]) == 4 and len(held(bed)["md_ipcache"]) == 11)
    bed.delete_pod("cluster1", "late")
    until(lambda: len(held(bed)["md_endpoint"]) == 3 and len(held(bed)["md_ipcache"]) == 10)
    until(lambda: status(bed).get("state") == "ok")


def test_sigterm_ends_it_and_the_kernel_keeps_everything(bed: Testbed) -> None:
    until(lambda: reconciled(bed))
    before = held(bed)
    bed.kill_part(DAEMON, signal.SIGTERM)
    until(lambda: not status(bed))
    assert held(bed) == before
    log = bed.layout.log(bed.part(DAEMON).record_name).read_text()
    assert "stopped; what is in the kernel stays" in log
    bed.start_parts([bed.part(DAEMON)])


def test_who_was_refused_at_a_socket_is_told_by_name(bed: Testbed) -> None:
    until(lambda: reconciled(bed))
    metadata = {"name": "empty", "namespace": "default", "annotations": {GLOBAL: "true"}}
    spec = {"clusterIP": EMPTY, "selector": {"name": "nobody"}, "ports": [{"port": 80, "protocol": "TCP"}]}
    bed.apply("cluster1", {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    until(lambda: status(bed).get("services") == 2)
    place = bed.kubelet("cluster1").place_of(bed.pod("cluster1", "x-wing"))
    connect = f"import socket; socket.create_connection(({EMPTY!r}, 80), 5)"

    def refused() -> bool:
        done = subprocess.run([sys.executable, "-c", connect], preexec_fn=place.enter, capture_output=True, text=True)
        return "ConnectionRefusedError" in done.stderr

    until(refused)
    where = ["--run-dir", str(bed.layout.run), "--instance", bed.layout.instance("cluster1", "node2")]
    words = [
        "monitor",
        "--drops",
        "--seconds=0",
        "--last=1000",
        "-o",
        "json",
        "--from",
        "default/x-wing",
        "--to",
        EMPTY,
    ]
    told = subprocess.run([sys.executable, "-m", "meshd", *words, *where], capture_output=True, text=True, check=True)
    event = json.loads(told.stdout.splitlines()[-1])
    assert (event["verdict"], event["reason"], event["direction"]) == ("drop", "no-backend", "egress")
    assert event["by"] == ["service default/empty has no backend"]
    assert (event["source"]["address"], event["source"]["cluster"]) == ("10.0.1.2", "cluster1")
    assert event["source"]["identity"] >> 16 == 1
    assert event["destination"]["port"] == 80


def test_through_the_stack_the_nodes_own_rules_see_other_clusters_packets(bed: Testbed, tmp_path: Path) -> None:
    node = bed.layout.node("cluster1", "node2")
    until(lambda: reconciled(bed))
    bed.kill_part(DAEMON)
    part = bed.part(DAEMON)
    with (tmp_path / "log").open("wb") as log:
        argv = [*part.argv, "--through-stack"]
        process = subprocess.Popen(argv, stdout=log, stderr=log, preexec_fn=part.place.enter, cwd="/")
    try:
        until(lambda: reconciled(bed))
        assert all(
            Endpoint.from_buffer_copy(value).flags & EndpointFlag.STACK for value in held(bed)["md_endpoint"].values()
        )
        netns.nft("insert rule ip kindnet postrouting ip daddr 20.0.0.0/8 accept", namespace=node)
        assert connects(bed)
        netns.nft(
            "add table ip theirs; add chain ip theirs forward { type filter hook forward priority 0; }; "
            "add rule ip theirs forward ip daddr 20.0.0.1 drop",
            namespace=node,
        )
        assert not connects(bed, within=0.3)
    finally:
        netns.nft("add table ip theirs; delete table ip theirs", namespace=node)
        process.terminate()
        process.wait()
        bed.start_parts([part])
    until(lambda: reconciled(bed))
    assert not any(
        Endpoint.from_buffer_copy(value).flags & EndpointFlag.STACK for value in held(bed)["md_endpoint"].values()
    )
    assert connects(bed)


def connects(bed: Testbed, *, within: float = DEADLINE_S) -> bool:
    """From x-wing in cluster1 to rebel-base-1 in cluster2."""
    pod = Namespace(bed.layout.pod("cluster1", "default", "x-wing"))
    with closing(pod.socket(socket.AF_INET, socket.SOCK_STREAM, timeout=within)) as client:
        try:
            client.connect(("20.0.0.1", 8080))
        except TimeoutError:
            return False
        return True


def _end(process: "subprocess.Popen[bytes]") -> None:
    """strace ends when the daemon does; SIGTERM is the daemon's."""
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
    for pid in children.stdout.split():
        subprocess.run(["kill", "-TERM", pid], check=False)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
