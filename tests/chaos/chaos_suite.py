"""Faults under a steady stream of requests, on a testbed of three clusters: what fails, and for how long. Slow: run by
`make chaos`, not by `make test`. Each test adds a row to build/chaos.json; docs/failure-modes.md cites them.

    frontend-1 of cluster1 ── 50 requests/s ──▶ 30.1.1.1 ──▶ rebel-base in cluster1, cluster2 and cluster3
"""

import json
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from hashlib import sha256
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from datapath.entries import ipcache_entry
from datapath.layout import MAPS
from datapath.maps import MapFull, Maps
from datapath.pins import Pins
from meshd.socket import SocketError, get
from meshd.testbed import netns
from meshd.testbed.demo import load
from meshd.testbed.demo.results import Load, parse
from meshd.testbed.layout import BPFFS
from meshd.testbed.parts import Part, socket_path
from meshd.testbed.testbed import Testbed
from tests.support.clock import shifted_clock

pytestmark = pytest.mark.root
CLUSTERS = ("cluster1", "cluster2", "cluster3")
RATE = 50
FAULT_S = 4.0
DEADLINE_S = 60.0
FIRST_POD_IDENTITY = 256
ROOM = MAPS["md_ipcache"].size
FOLDER = Path(__file__).parents[2] / "build"
ROWS: list[dict[str, object]] = []
PROCESSES = [
    *(f"{cluster}/{part}" for cluster in ("cluster1", "cluster2") for part in ("agent", "proxy", "etcd")),
    "cluster1/daemon-node2",
    "cluster2/daemon-node1",
]


def until(fact: Callable[[], object], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not fact():
        assert time.monotonic() < end, f"{what} did not come within {DEADLINE_S:.0f} s"
        time.sleep(0.05)


@dataclass
class Field:
    """The testbed, seen from node2 of cluster1, where the clients are."""

    bed: Testbed
    cut: list[str] = field(default_factory=list)

    def status(self, cluster: str = "cluster1", node: str = "node2") -> dict[str, Any]:
        try:
            answer: dict[str, Any] = get(socket_path(self.bed.layout, cluster, node, "daemon"), "/v1/status")
        except SocketError:
            return {"clusters": [], "state": "broken", "events": {}}
        return answer

    def events(self) -> list[dict[str, Any]]:
        answer: dict[str, Any] = get(socket_path(self.bed.layout, "cluster1", "node2", "daemon"), "/v1/events/0")
        events: list[dict[str, Any]] = answer["events"]
        return events

    def realised(self) -> dict[str, list[str]]:
        """What the node's maps hold, one line for each entry."""
        answer: dict[str, list[str]] = get(socket_path(self.bed.layout, "cluster1", "node2", "daemon"), "/v1/realised")
        return answer

    def retire(self, name: str, address: str) -> None:
        """A backend of cluster2 ends as Kubernetes would end it: first it is not ready any more."""
        self.bed.set_ready("cluster2", [name], ready=False)
        until(lambda: address not in json.dumps(self.realised()["md_be4"]), "no backend")
        self.bed.delete_pod("cluster2", name)
        until(lambda: address not in json.dumps(self.realised()), "the end of its address")

    def state_of(self, remote: str, cluster: str = "cluster1", node: str = "node2") -> tuple[str, str]:
        """Link and presence of a remote cluster."""
        for entry in self.status(cluster, node)["clusters"]:
            if entry["cluster"] == remote:
                return entry["link"]["state"], entry["presence"]["state"]
        return "", ""

    def all_well(self) -> bool:
        own = [self.status(cluster, node) for cluster in CLUSTERS for node in ("node1", "node2")]
        clusters = [entry for status in own for entry in status["clusters"]]
        fresh = [e for e in clusters if (e["link"]["state"], e["presence"]["state"]) == ("ready", "fresh")]
        return len(fresh) == len(clusters) == 6 * len(CLUSTERS)

    @contextmanager
    def requests(self, name: str) -> Iterator[list[Load]]:
        """Requests all the time of the block; what they saw is in the list afterwards."""
        frontend = self.bed.kubelet("cluster1").place_of(self.bed.pod("cluster1", "frontend-1"))
        argv = [sys.executable, "-I", "-u", load.__file__, "30.1.1.1", "80", f"--rate={RATE}", "--seconds=600"]
        FOLDER.mkdir(exist_ok=True)
        with (FOLDER / "chaos.load").open("wb") as output:
            process = subprocess.Popen(argv, stdout=output, preexec_fn=frontend.enter)
        seen: list[Load] = []
        try:
            time.sleep(1.0)
            yield seen
            time.sleep(1.0)
        finally:
            process.terminate()
            process.wait()
        lines = (FOLDER / "chaos.load").read_bytes().splitlines()
        seen.append(parse(line for line in lines if line.endswith(b"}")))
        row = summary(name, seen[0])
        ROWS.append(row)
        print(row, file=sys.stderr)
        (FOLDER / "chaos.json").write_text(json.dumps(ROWS, indent=2) + "\n")

    @contextmanager
    def without(self, node: str, *, to: str, deaf: bool = False) -> Iterator[None]:
        """The node neither sends to nor hears from these addresses; if it is `deaf`, it only does not hear."""
        namespace = self.bed.layout.control_plane(node) if "/" not in node else self.bed.layout.node(*node.split("/"))
        rules = [
            "add table inet chaos",
            "add chain inet chaos out { type filter hook output priority 0; }",
            "add chain inet chaos in { type filter hook input priority 0; }",
            f"add rule inet chaos in ip saddr {to} drop",
        ]
        rules += [] if deaf else [f"add rule inet chaos out ip daddr {to} drop"]
        netns.nft("\n".join(rules) + "\n", namespace=namespace)
        try:
            yield
        finally:
            netns.nft("delete table inet chaos\n", namespace=namespace)

    @contextmanager
    def stale_after(self, seconds: int) -> Iterator[None]:
        """Node2 of cluster1 withdraws cluster2 so soon after it was lost, for the time of the block."""
        file = self.bed.layout.clustermesh("cluster1", "node2") / "cluster2"
        plain = file.read_text()
        file.write_text(plain + f"meshd: {{stale-after: {seconds}s}}\n")
        until(self.all_well, "a fresh mesh")
        try:
            yield
        finally:
            file.write_text(plain)

    def told(self, since: int, cluster: str) -> list[str]:
        """What node2 of cluster1 said of a cluster after its first so many events."""
        return [event["event"] for event in self.events()[since:] if event["cluster"] == cluster]

    def digest(self, cluster: str, node: str) -> str:
        """Of what the maps of a node say about pods: address and identity, whoever carries them."""
        found: dict[str, list[str]] = get(socket_path(self.bed.layout, cluster, node, "daemon"), "/v1/realised")
        pods = [line.split()[:2] for line in found["md_ipcache"]]
        known = sorted(line for line in pods if int(line[1].removeprefix("identity=")) >= FIRST_POD_IDENTITY)
        assert known
        return sha256(json.dumps(known).encode()).hexdigest()

    def digests(self) -> set[str]:
        return {self.digest(cluster, node) for cluster in CLUSTERS for node in ("node1", "node2")}

    def restart(self, *parts: Part) -> None:
        """These instead of those of the same names that run."""
        for part in parts:
            self.bed.kill_part(part.name)
        self.bed.start_parts(parts)


def summary(name: str, seen: Load) -> dict[str, object]:
    failures = seen.failures
    lasted = max((f.at + f.seconds for f in failures), default=0.0) - min((f.at for f in failures), default=0.0)
    return {
        "fault": name,
        "requests": len(seen.requests),
        "failed": len(failures),
        "failing for s": round(lasted, 1),
        "slowest s": round(seen.slowest_s, 2),
    }


@pytest.fixture(scope="module")
def field_() -> Iterator[Field]:
    bed = Testbed(f"x{secrets.token_hex(2)}", CLUSTERS)
    try:
        bed.up()
        for cluster in CLUSTERS:
            bed.annotate(cluster, "Service", "rebel-base", "io.cilium/global-service", "true")
        made = Field(bed)
        until(made.all_well, "a fresh mesh")
        yield made
    finally:
        bed.down()


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_is_killed_and_comes_back(field_: Field, name: str) -> None:
    with field_.requests(f"SIGKILL {name}, back after {FAULT_S:.0f} s") as seen:
        field_.bed.kill_part(name)
        time.sleep(FAULT_S)
        field_.bed.start_parts([field_.bed.part(name)])
        until(field_.all_well, "a fresh mesh")
    assert seen[0].failures == []


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_stands_still_and_goes_on(field_: Field, name: str) -> None:
    with field_.requests(f"SIGSTOP {name} for {FAULT_S:.0f} s") as seen:
        field_.bed.kill_part(name, signal.SIGSTOP)
        time.sleep(FAULT_S)
        field_.bed.kill_part(name, signal.SIGCONT)
        until(field_.all_well, "a fresh mesh")
    assert seen[0].failures == []


def test_the_control_link_is_cut_and_the_data_plane_is_not(field_: Field) -> None:
    """Clause 1: beyond stale-after, backends stay while their nodes answer."""
    with field_.stale_after(1), field_.requests("control link cut, stale-after 1 s") as seen:
        with field_.without("cluster1/node2", to="172.18.2.10"):
            until(lambda: field_.state_of("cluster2")[1] == "stale", "STALE")
            time.sleep(FAULT_S)
            assert field_.state_of("cluster2")[1] == "stale"
        until(field_.all_well, "a fresh mesh")
    assert seen[0].failures == []
    assert seen[0].by_cluster["cluster2"]


def test_an_agent_that_is_dead_for_longer_than_its_lease_has_deleted_nothing(field_: Field, tmp_path: Path) -> None:
    """Clause 1: the leases of a dead agent delete all that it said, and nobody believes it."""
    settings = tmp_path / "agent.yaml"
    settings.write_text("lease_ttl_s: 25\nbeacon_ttl_s: 5\n")
    plain = field_.bed.part("cluster2/agent")

    def entry() -> dict[str, Any]:
        clusters = field_.status()["clusters"]
        return next((entry for entry in clusters if entry["cluster"] == "cluster2"), {"presence": {}})

    def published() -> dict[str, Any]:
        answer = get(socket_path(field_.bed.layout, "cluster2", "control-plane", "agent"), "/v1/status")
        found: dict[str, Any] = answer["published"]
        return found

    try:
        field_.restart(replace(plain, argv=(*plain.argv, f"--config={settings}")))
        until(lambda: published()["announced"] and not published()["pending"], "all on the new leases")
        until(field_.all_well, "a fresh mesh")
        before = field_.digest("cluster1", "node2")
        with field_.requests("cluster2/agent dead for longer than its lease of 25 s") as seen:
            field_.bed.kill_part("cluster2/agent")
            until(lambda: entry()["presence"].get("waiting_deletes"), "what the leases delete")
            time.sleep(FAULT_S)
            assert field_.digest("cluster1", "node2") == before
            assert "missing" in entry()["presence"]["frozen"]
            field_.bed.start_parts([plain])
            until(lambda: field_.all_well() and not entry()["presence"]["waiting_deletes"], "a fresh mesh")
    finally:
        field_.restart(plain)
        until(field_.all_well, "a fresh mesh")
    assert seen[0].failures == []
    assert seen[0].by_cluster["cluster2"]
    assert field_.digest("cluster1", "node2") == before


@pytest.mark.parametrize("deaf", [False, True])
def test_a_dead_cluster_is_withdrawn_on_both_evidence(field_: Field, deaf: bool) -> None:
    """Clause 1, and 12 where packets pass one way only: requests fail at most until it is withdrawn; then all go to the
    living, and nothing flaps.
    """
    name = "unheard, though it hears" if deaf else "unreachable altogether"
    before = len(field_.events())
    with field_.stale_after(2), field_.requests(f"cluster2 {name}, stale-after 2 s") as seen:
        with field_.without("cluster1/node2", to="172.18.2.0/24", deaf=deaf):
            until(lambda: field_.state_of("cluster2")[1] == "withdrawn", "the withdrawal")
            withdrawn = time.monotonic()
            time.sleep(FAULT_S)
            held = field_.bed.kubelet("cluster2").objects.get("Pod", "rebel-base-1", "default")["status"]["podIP"]
            entry = get(socket_path(field_.bed.layout, "cluster1", "node2", "daemon"), f"/v1/ip/{held}")
            assert "unreachable=True" in entry["realised"][0]
            assert field_.state_of("cluster1", "cluster2", "node1") == ("ready", "fresh")
            end = time.monotonic()
        until(field_.all_well, "a fresh mesh")
    until(lambda: len(field_.digests()) == 1, "the same state on all nodes of all clusters")
    assert field_.told(before, "cluster2").count("withdrawn") == 1
    between = [r for r in seen[0].begun_after(withdrawn + 0.5).requests if r.at < end]
    assert between
    assert [r.error for r in between if r.error] == []
    assert {str(r.pod).partition("/")[0] for r in between} == {"cluster1", "cluster3"}


def test_a_partition_that_a_third_cluster_does_not_see_does_not_flap(field_: Field) -> None:
    """Clause 12: cluster1 and cluster2 do not hear each other's control planes, cluster3 hears both."""
    before = len(field_.events())
    with field_.requests("partition of cluster1 and cluster2, cluster3 sees both") as seen:
        with field_.without("cluster1", to="172.18.2.0/24"), field_.without("cluster2", to="172.18.1.0/24"):
            until(lambda: field_.state_of("cluster2")[1] == "stale", "STALE")
            time.sleep(FAULT_S)
            assert field_.state_of("cluster1", "cluster3", "node1") == ("ready", "fresh")
            assert field_.state_of("cluster2", "cluster3", "node1") == ("ready", "fresh")
        until(field_.all_well, "a fresh mesh")
    until(lambda: len(field_.digests()) == 1, "the same state on all nodes of all clusters")
    told = field_.told(before, "cluster2")
    assert told.count("stale") <= 1
    assert "withdrawn" not in told
    assert seen[0].failures == []


def test_a_partition_one_way_does_not_flap(field_: Field) -> None:
    """Clause 12: cluster2's control plane does not hear cluster1's nodes, whatever it sends to them; cluster2 hears
    cluster1, and cluster3 both.
    """
    before = len(field_.events())
    with field_.requests("cluster2's control plane deaf for cluster1, which it sends to") as seen:
        with field_.without("cluster2", to="172.18.1.0/24", deaf=True):
            until(lambda: field_.state_of("cluster2")[1] == "stale", "STALE")
            field_.bed.add_pod("cluster2", "late", like="rebel-base-1")
            late = field_.bed.pod("cluster2", "late")["status"]["podIP"]
            time.sleep(FAULT_S)
            assert late not in json.dumps(field_.realised())
            for remote in ("cluster1", "cluster2"):
                assert field_.state_of(remote, "cluster3", "node1") == ("ready", "fresh")
            assert field_.state_of("cluster1", "cluster2", "node1") == ("ready", "fresh")
        until(field_.all_well, "a fresh mesh")
        until(lambda: late in json.dumps(field_.realised()), "a pod that came meanwhile")
        field_.retire("late", late)
    until(lambda: len(field_.digests()) == 1, "the same state on all nodes of all clusters")
    told = field_.told(before, "cluster2")
    assert told.count("stale") <= 1
    assert "withdrawn" not in told
    assert seen[0].failures == []


def shifted(part: Part, folder: Path, hours: int) -> Part:
    """The same process, with another wall clock."""
    folder.mkdir()
    environment = shifted_clock(folder, timedelta(hours=hours))
    return replace(part, argv=("env", *(f"{name}={value}" for name, value in environment.items()), *part.argv))


@pytest.mark.parametrize("hours", [1, -1])
def test_clocks_that_differ_by_an_hour_change_nothing(field_: Field, hours: int, tmp_path: Path) -> None:
    """Clause 11: agent and proxy of cluster2 and a daemon of cluster1, each with a wall clock of its own."""
    shifts = {"cluster2/agent": hours, "cluster2/proxy": -hours, "cluster1/daemon-node2": hours}
    plain = [field_.bed.part(name) for name in shifts]
    parts = [shifted(part, tmp_path / part.record_name, shifts[part.name]) for part in plain]
    name = f"clocks shifted: agent {hours:+} h, proxy {-hours:+} h, another cluster's daemon {hours:+} h"
    try:
        with field_.requests(name) as seen:
            field_.restart(*parts)
            until(field_.all_well, "a fresh mesh")
            field_.bed.add_pod("cluster2", "late", like="rebel-base-1")
            late = field_.bed.pod("cluster2", "late")["status"]["podIP"]
            until(lambda: late in json.dumps(field_.realised()), "a pod that came meanwhile")
            time.sleep(FAULT_S)
            assert field_.all_well()
            field_.retire("late", late)
    finally:
        field_.restart(*plain)
        until(field_.all_well, "a fresh mesh")
    assert seen[0].failures == []


def test_a_full_map_is_shown_and_costs_only_what_has_no_room(field_: Field) -> None:
    """Clause 8: somebody has filled the ipcache of frontend-1's node."""
    blank = [ipcache_entry(IPv4Address("240.0.0.0") + n, identity=0, tunnel=None, remote=True) for n in range(ROOM)]
    folder = Pins(BPFFS, field_.bed.layout.instance("cluster1", "node2")).folder
    with field_.requests("md_ipcache full") as seen, Maps(folder) as maps:
        with suppress(MapFull):
            maps.upsert("md_ipcache", {entry.key: entry.value for entry in blank})
        field_.bed.add_pod("cluster2", "late", like="rebel-base-1")
        late = field_.bed.pod("cluster2", "late")["status"]["podIP"]
        until(lambda: "cannot be written" in str(field_.status()["findings"]), "a finding")
        time.sleep(FAULT_S)
        assert late not in json.dumps(field_.realised()["md_ipcache"])
        maps.delete("md_ipcache", [entry.key for entry in blank])
        until(lambda: late in json.dumps(field_.realised()["md_ipcache"]), "room for it")
        field_.retire("late", late)
        until(field_.all_well, "a fresh mesh")
    assert seen[0].failures == []


def test_leaving_works_with_the_cluster_dead_and_removes_every_trace(field_: Field) -> None:
    """Clause 9. The last test: cluster3 does not come back."""
    for part in ("agent", "proxy", "etcd"):
        field_.bed.kill_part(f"cluster3/{part}")
    with field_.requests("cluster3 leaves, dead") as seen:
        (field_.bed.layout.clustermesh("cluster1", "node2") / "cluster3").unlink()
        path = socket_path(field_.bed.layout, "cluster1", "node2", "daemon")
        until(lambda: "40.0." not in json.dumps(get(path, "/v1/realised")), "the end of cluster3's entries")
    assert field_.state_of("cluster3") == ("", "")
    assert seen[0].failures == []
