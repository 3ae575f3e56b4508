"""How long a new pod of cluster2 takes to be reachable from cluster1, and how much of it is ours.

200 pods exist before, with namespace and server, but nobody has been told. One after the other each one's manifest is
added to cluster2 and, from that moment, measured on one clock:

    manifest ──▶ agent ──▶ etcd ──▶ a plain watch on the same key            "plain watch"
                            └────▶ proxy ──▶ daemon ──▶ cluster1's BPF map    "map"
                                                          └──▶ 30.1.1.1      "first connect" from frontend-1
"""

import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from bench.map_entry import MapEntry, opened
from bench.report import Aim, percentile, report
from datapath.entries import ipcache_entry
from datapath.layout import LAYOUT_VERSION
from meshd.testbed.layout import BPFFS
from meshd.testbed.objects import Object
from meshd.testbed.parts import ETCD_PORT
from meshd.testbed.process import Place
from meshd.testbed.scheduler import IP_ANNOTATION
from meshd.testbed.testbed import Testbed

PODS = 200
FIRST_HOST = 20
PREFIX = "cilium/state/ip/v1/default/"
GLOBAL = "io.cilium/global-service"
DEADLINE_S = 20.0
POLL_S = 0.0001
CALM_S = 0.05  # what the pod before left to do on all nodes is done
ROOT = Path(__file__).parents[1]


@dataclass
class Seen:
    """Lines `<nanoseconds> <name>` of a running program, by name, first one kept."""

    at: dict[str, int] = field(default_factory=dict)
    ready: threading.Event = field(default_factory=threading.Event)

    def follow_in_thread(self, process: "subprocess.Popen[str]") -> threading.Thread:
        """The thread ends with the program."""
        thread = threading.Thread(target=self.follow, args=(process,), daemon=True)
        thread.start()
        return thread

    def follow(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout
        for line in process.stdout:
            time_ns, _, name = line.strip().partition(" ")
            if name:
                self.at.setdefault(name, int(time_ns))
            else:
                self.ready.set()


@contextmanager
def running(place: Place, *argv: str) -> Iterator[Seen]:
    """Runs a program in a place and follows what it prints."""
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT, preexec_fn=place.enter)
    seen = Seen()
    thread = seen.follow_in_thread(process)
    try:
        yield seen
    finally:
        process.kill()
        process.wait()
        thread.join()


def candidate(model: Object, number: int) -> Object:
    """A pod like the model, with a name and an address of its own."""
    annotations = {IP_ANNOTATION: f"20.0.0.{FIRST_HOST + number}"}
    metadata = {**model["metadata"], "name": f"probe-{number}", "annotations": annotations}
    spec = {key: value for key, value in model["spec"].items() if key != "nodeName"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def prepare(bed: Testbed) -> list[Object]:
    """Both services global and without backends; the pods run, and nobody has been told."""
    for cluster in ("cluster1", "cluster2"):
        bed.annotate(cluster, "Service", "rebel-base", GLOBAL, "true")
        bed.set_ready(cluster, ["rebel-base-1", "rebel-base-2"], ready=False)
    kubelet = bed.kubelet("cluster2")
    model = bed.pod("cluster2", "rebel-base-1")
    pods = []
    for number in range(PODS):
        pods.append(kubelet.prepare(candidate(model, number)))
        if number % 20 == 19:
            print(f"  {number + 1} of {PODS} pods run", file=sys.stderr, flush=True)
    for pod in pods:
        kubelet.wait_ready(pod)
    return pods


def until(condition: object, what: str) -> int:
    """Polls until the condition holds, returns the time in nanoseconds. Raises TimeoutError."""
    assert callable(condition)
    end = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come within {DEADLINE_S:.0f} s")
        time.sleep(POLL_S)
    return time.monotonic_ns()


def measure(bed: Testbed, pods: list[Object]) -> list[dict[str, float]]:
    """Milliseconds from the manifest to each of the three, per pod."""
    kubelet = bed.kubelet("cluster2")
    frontend = bed.kubelet("cluster1").place_of(bed.pod("cluster1", "frontend-1"))
    etcd = bed.part("cluster2/etcd").place
    folder = BPFFS / "meshd" / bed.layout.instance("cluster1", "node2") / f"v{LAYOUT_VERSION}"
    client = str(ROOT / "bench" / "first_answer.py")
    rows = []
    with ExitStack() as stack:
        held = stack.enter_context(opened(folder / "md_ipcache"))
        watch = (sys.executable, "-m", "bench.etcd_watch", f"127.0.0.1:{ETCD_PORT}", PREFIX)
        plain = stack.enter_context(running(etcd, *watch))
        answers = stack.enter_context(running(frontend, sys.executable, "-I", "-u", client, "30.1.1.1", "80"))
        if not plain.ready.wait(DEADLINE_S):
            raise TimeoutError("the plain watch did not start")
        for pod in pods:
            address, name = pod["status"]["podIP"], pod["metadata"]["name"]
            entry = MapEntry(held, ipcache_entry(IPv4Address(address), identity=0, tunnel=None, remote=True).key)
            time.sleep(CALM_S)
            start = time.monotonic_ns()
            kubelet.show(pod, ready=True)
            in_map = until(entry.stands, f"{address} in the map")
            until(lambda name=name: name in answers.at, f"an answer of {name}")
            until(lambda address=address: PREFIX + address in plain.at, f"{address} at the plain watch")
            kubelet.objects.delete(pod)
            until(lambda entry=entry: not entry.stands(), f"the end of {address}")
            times = {"plain watch": plain.at[PREFIX + address], "map": in_map, "first connect": answers.at[name]}
            rows.append({what: (at - start) / 1e6 for what, at in times.items()})
    return rows


def main() -> None:
    bed = Testbed(f"prop{secrets.token_hex(2)}")
    try:
        print("bench propagation: two clusters, 200 pods; about two minutes", file=sys.stderr, flush=True)
        bed.up(progress=lambda what: print(f"  {what}", file=sys.stderr, flush=True))
        measured = measure(bed, prepare(bed))
    finally:
        bed.down()
    behind = [row["map"] - row["plain watch"] for row in measured]
    series = {f"manifest → {what}": [row[what] for row in measured] for what in measured[0]}
    series["plain watch → map"] = behind
    rows: list[dict[str, object]] = [
        {"what": what, "p50 ms": percentile(values, 50), "p99 ms": percentile(values, 99), "pods": len(values)}
        for what, values in series.items()
    ]
    p50 = percentile(behind, 50)
    report("propagation", rows, [Aim("map behind the plain watch, p50", "≤ 5 ms", p50, p50 <= 5.0)])


if __name__ == "__main__":
    main()
