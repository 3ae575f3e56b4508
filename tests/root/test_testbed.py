"""The testbed without the mesh: what a cluster does by itself, and that nothing is left behind.

switch ── br0 172.18.0.1 (leads nowhere)
  ├── cluster1-node1 172.18.1.11 ── rebel-base-1 10.0.0.1, rebel-base-2 10.0.0.2
  ├── cluster1-node2 172.18.1.12 ── frontend-1 10.0.1.1, x-wing 10.0.1.2, inventory-1 10.0.1.10
  └── cluster2-node1 172.18.2.11 ── …
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.config import ConfigError
from meshd.testbed import cgroup, netns, process
from meshd.testbed.demo import load
from meshd.testbed.demo.results import Request, parse
from meshd.testbed.layout import BPFFS, Layout
from meshd.testbed.testbed import Testbed

pytestmark = pytest.mark.root


def new_tag() -> str:
    return f"t{secrets.token_hex(3)}"


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    testbed = Testbed(new_tag())
    try:
        testbed.up(mesh=False)
        yield testbed
    finally:
        testbed.down()


def ask(bed: Testbed, pod: str, host: str, port: int = 80) -> Request:
    """One request from a pod, by way of the command line."""
    argv = [sys.executable, "-m", "meshd", "testbed", "exec", "--tag", bed.layout.tag, pod, "--"]
    argv += [sys.executable, "-I", load.__file__, host, str(port), "--requests=1"]
    [request] = parse(subprocess.check_output(argv).splitlines()).requests
    return request


def masqueraded(bed: Testbed) -> int:
    counters = netns.output(["nft", "-j", "list", "counters"], namespace=bed.layout.node("cluster1", "node2"))
    [counter] = [
        c["counter"] for c in json.loads(counters)["nftables"] if c.get("counter", {}).get("table") == "kindnet"
    ]
    return int(counter["packets"])


def test_cluster_ip_reaches_pods_of_the_own_cluster_only(bed: Testbed) -> None:
    seen = {ask(bed, "cluster1/frontend-1", "30.1.1.1").pod for _ in range(12)}
    assert seen == {"cluster1/rebel-base-1", "cluster1/rebel-base-2"}


def test_pods_of_a_cluster_see_each_others_addresses(bed: Testbed) -> None:
    assert ask(bed, "cluster1/x-wing", "10.0.0.1", 8080).peer == "10.0.1.2"


def test_pods_of_another_cluster_cannot_be_reached(bed: Testbed) -> None:
    before = masqueraded(bed)
    assert ask(bed, "cluster1/frontend-1", "20.0.0.1", 8080).error
    assert masqueraded(bed) > before, "the counter that the demo trusts must count"


def test_a_node_reaches_cluster_ips_with_its_own_address(bed: Testbed) -> None:
    argv = [sys.executable, "-I", load.__file__, "30.1.2.1", "80", "--requests=1"]
    output = netns.output(argv, namespace=bed.layout.node("cluster1", "node1"))
    [request] = parse(output.encode().splitlines()).requests
    assert (request.pod, request.peer) == ("cluster1/inventory-1", "172.18.1.11")


def test_exec_joins_the_nodes_cgroup_and_the_pods_namespace(bed: Testbed) -> None:
    command = "import os; print(open('/proc/self/cgroup').read(), os.readlink('/proc/self/ns/net'))"
    argv = [sys.executable, "-m", "meshd", "testbed", "exec", "--tag", bed.layout.tag, "cluster2/x-wing"]
    output = subprocess.check_output([*argv, "--", "python3", "-c", command], text=True)
    [record] = bed.kubelet("cluster2").records(bed.pod("cluster2", "x-wing"))
    assert f"/meshd-{bed.layout.tag}/cluster2-node2" in output
    assert os.readlink(f"/proc/{record.pid}/ns/net") in output


def test_nothing_runs_in_the_machines_own_namespace(bed: Testbed) -> None:
    own = os.readlink("/proc/self/ns/net")
    records = process.load_all(bed.layout.processes)
    assert records
    assert not [record.name for record in records if os.readlink(f"/proc/{record.pid}/ns/net") == own]


def test_verbs_know_which_clusters_stand(bed: Testbed) -> None:
    assert [cluster.name for cluster in Testbed(bed.layout.tag).clusters] == ["cluster1", "cluster2"]
    with pytest.raises(ConfigError, match="stands with cluster1, cluster2"):
        Testbed(bed.layout.tag, ["cluster1"]).up(mesh=False)


def test_readiness_and_added_pods_move_the_service(bed: Testbed) -> None:
    bed.set_ready("cluster2", ["rebel-base-1", "rebel-base-2"], ready=False)
    assert ask(bed, "cluster2/frontend-1", "30.2.1.1").error, "refused: no endpoint"
    bed.add_pod("cluster2", "rebel-base-9", like="rebel-base-1", ip="20.0.0.9")
    assert ask(bed, "cluster2/frontend-1", "30.2.1.1").pod == "cluster2/rebel-base-9"
    bed.delete_pod("cluster2", "rebel-base-9")
    bed.set_ready("cluster2", ["rebel-base-1", "rebel-base-2"], ready=True)
    assert ask(bed, "cluster2/frontend-1", "30.2.1.1").pod in ("cluster2/rebel-base-1", "cluster2/rebel-base-2")


def test_up_again_restarts_only_what_died(bed: Testbed) -> None:
    before = {record.name: record for record in process.load_all(bed.layout.processes)}
    [victim] = bed.kubelet("cluster1").records(bed.pod("cluster1", "inventory-1"))
    process.send(victim, signal.SIGKILL)
    assert process.wait_gone(victim, deadline_s=5)
    bed.up(mesh=False)
    after = {record.name: record for record in process.load_all(bed.layout.processes)}
    assert {name for name, record in after.items() if record != before[name]} == {victim.name}
    assert ask(bed, "cluster1/frontend-1", "30.1.2.1").pod


def test_two_testbeds_stand_side_by_side_and_one_leaves_without_the_other(bed: Testbed) -> None:
    second = Testbed(new_tag(), ["cluster1"])
    try:
        second.up(mesh=False)
        assert ask(second, "cluster1/frontend-1", "30.1.1.1").pod
    finally:
        second.down()
    assert_nothing_left(second.layout)
    assert ask(bed, "cluster1/frontend-1", "30.1.1.1").pod


def test_down_after_a_crash_removes_all() -> None:
    """`up` dies half way: no record of a process, half a state folder; `down` still finds everything by its tag."""
    crashed = Testbed(new_tag(), ["cluster1"])
    try:
        crashed.up(mesh=False)
        for record in crashed.layout.processes.iterdir():
            record.unlink()
        crashed.layout.complete.unlink()
    finally:
        crashed.down()
    assert_nothing_left(crashed.layout)
    crashed.down()


def test_up_after_a_crash_of_up_completes_it() -> None:
    """The first `up` is killed while it starts pods; the second brings the missing ones and keeps the others."""
    crashed = Testbed(new_tag(), ["cluster1"])
    argv = [
        sys.executable,
        "-m",
        "meshd",
        "testbed",
        "up",
        "--no-mesh",
        f"--tag={crashed.layout.tag}",
        "--clusters=cluster1",
    ]
    try:
        first = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while not process.load_all(crashed.layout.processes) and time.monotonic() < end:
            time.sleep(0.005)
        first.kill()
        first.wait()
        crashed.up(mesh=False)
        assert len(crashed.ready_pods("cluster1")) == 5
        assert ask(crashed, "cluster1/frontend-1", "30.1.1.1").pod
    finally:
        crashed.down()
    assert_nothing_left(crashed.layout)


def test_without_root_one_sentence_and_exit_3() -> None:
    # Another user who may read everything: the checkout may lie below a folder that is root's alone.
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    nobody += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    argv = [*nobody, sys.executable, "-m", "meshd", "testbed", "check"]
    result = subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/")
    assert result.returncode == 3
    assert "needs root" in result.stderr
    assert result.stderr.count("\n") == 1


def assert_nothing_left(layout: Layout) -> None:
    assert netns.names(layout.prefix) == []
    assert not layout.cgroup(cgroup.find_root()).exists()
    assert not layout.state.exists()
    assert not list(BPFFS.glob(f"meshd/{layout.tag}-*"))
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if layout.tag.encode() in _read(path)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended meanwhile
        return b""
