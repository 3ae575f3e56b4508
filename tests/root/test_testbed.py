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
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.testbed import cgroup, netns, process
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


def curl(bed: Testbed, pod: str, url: str) -> dict[str, str] | None:
    """What a server answers to a pod, or None if it cannot be reached."""
    argv = [
        sys.executable,
        "-m",
        "meshd",
        "testbed",
        "exec",
        "--tag",
        bed.layout.tag,
        pod,
        "--",
        "curl",
        "-sS",
        "-m",
        "5",
        url,
    ]
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    if result.returncode:
        return None
    answer: dict[str, str] = json.loads(result.stdout)
    return answer


def masqueraded(bed: Testbed) -> int:
    counters = netns.output(["nft", "-j", "list", "counters"], namespace=bed.layout.node("cluster1", "node2"))
    [counter] = [
        c["counter"] for c in json.loads(counters)["nftables"] if c.get("counter", {}).get("table") == "kindnet"
    ]
    return int(counter["packets"])


def test_cluster_ip_reaches_pods_of_the_own_cluster_only(bed: Testbed) -> None:
    seen = [curl(bed, "cluster1/frontend-1", "http://30.1.1.1/") for _ in range(12)]
    assert {(answer["cluster"], answer["peer"]) for answer in seen if answer} == {("cluster1", "10.0.1.1")}
    assert None not in seen


def test_pods_of_another_cluster_cannot_be_reached(bed: Testbed) -> None:
    before = masqueraded(bed)
    assert curl(bed, "cluster1/frontend-1", "http://20.0.0.1:8080/") is None
    assert masqueraded(bed) > before, "the counter that the demo trusts must count"


def test_node_is_seen_by_its_own_address(bed: Testbed) -> None:
    result = netns.output(
        ["curl", "-sS", "-m", "5", "http://30.1.2.1/"], namespace=bed.layout.node("cluster1", "node1")
    )
    assert json.loads(result) == {"pod": "inventory-1", "cluster": "cluster1", "peer": "172.18.1.11"}


def test_exec_joins_the_nodes_cgroup_and_the_pods_namespace(bed: Testbed) -> None:
    command = "import os; print(open('/proc/self/cgroup').read(), os.readlink('/proc/self/ns/net'))"
    argv = [sys.executable, "-m", "meshd", "testbed", "exec", "--tag", bed.layout.tag, "cluster2/x-wing"]
    output = subprocess.check_output([*argv, "--", "python3", "-c", command], text=True)
    [record] = bed.kubelet("cluster2").records(bed.pod("cluster2", "x-wing"))
    assert f"/meshd-{bed.layout.tag}/cluster2-node2" in output
    assert os.readlink(f"/proc/{record.pid}/ns/net") in output


def test_readiness_and_added_pods_move_the_service(bed: Testbed) -> None:
    bed.set_ready("cluster2", ["rebel-base-1", "rebel-base-2"], ready=False)
    assert curl(bed, "cluster2/frontend-1", "http://30.2.1.1/") is None, "refused: no endpoint"
    bed.add_pod("cluster2", "rebel-base-9", like="rebel-base-1", ip="20.0.0.9")
    answer = curl(bed, "cluster2/frontend-1", "http://30.2.1.1/")
    assert answer is not None
    assert answer["pod"] == "rebel-base-9"
    bed.delete_pod("cluster2", "rebel-base-9")
    bed.set_ready("cluster2", ["rebel-base-1", "rebel-base-2"], ready=True)
    assert curl(bed, "cluster2/frontend-1", "http://30.2.1.1/")


def test_up_again_restarts_only_what_died(bed: Testbed) -> None:
    before = {record.name: record for record in process.load_all(bed.layout.processes)}
    [victim] = bed.kubelet("cluster1").records(bed.pod("cluster1", "inventory-1"))
    process.send(victim, signal.SIGKILL)
    assert process.wait_gone(victim, deadline_s=5)
    bed.up(mesh=False)
    after = {record.name: record for record in process.load_all(bed.layout.processes)}
    assert {name for name, record in after.items() if record != before[name]} == {victim.name}
    assert curl(bed, "cluster1/frontend-1", "http://30.1.2.1/")


def test_two_testbeds_stand_side_by_side_and_one_leaves_without_the_other(bed: Testbed) -> None:
    second = Testbed(new_tag(), ["cluster1"])
    try:
        second.up(mesh=False)
        assert curl(second, "cluster1/frontend-1", "http://30.1.1.1/")
    finally:
        second.down()
    assert_nothing_left(second.layout)
    assert curl(bed, "cluster1/frontend-1", "http://30.1.1.1/")


def test_down_after_a_crash_removes_all(monkeypatch: pytest.MonkeyPatch) -> None:
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
