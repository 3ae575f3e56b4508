"""How long other clusters' changes take into the maps while one cluster floods the daemon.

The scene of bench/changes.py. Cluster3 writes as fast as it can, and new addresses of cluster2 are looked for, in
rounds:

    calm      cluster3 says nothing
    beside    it floods another reader: the daemon does not know it, so that it only takes the machine's time
    flooded   it floods the daemon

As cluster3 would have machines of its own, its processes are scheduled as SCHED_IDLE: they get what the CPUs have left,
and nobody waits for one of them to end its slice. How much they write is in the table. The aims are about the medians
of the rounds' ratios: what the machine does beside comes and goes, and concerns neighbours alike.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.changes import WARM_S, Scene, new_scene, plain_watch
from bench.node import link_of
from bench.report import Aim, percentile, report, spread

FLOOD, BESIDE_FLOOD = 50_000, 100
ROUNDS = 5
PROBES, PROBE_S = 330, 0.015


@dataclass(frozen=True)
class Sample:
    """Milliseconds from etcd's answer until the map has it, the daemon's share of a CPU, changes/s of cluster3."""

    p50: float
    p99: float
    cpu: float
    flood: float


def sample(scene: Scene) -> tuple[float, float, float]:
    """p50, p99 and the daemon's share of a CPU."""
    time.sleep(WARM_S)
    cpu, began = scene.daemon.cpu_s(), time.monotonic()
    found = [in_map for _, in_map in scene.probes(PROBES, PROBE_S)]
    used = (scene.daemon.cpu_s() - cpu) / (time.monotonic() - began)
    return percentile(found, 50), percentile(found, 99), used


def calm(scene: Scene) -> Sample:
    with scene.changing(2, BESIDE_FLOOD):
        return Sample(*sample(scene), flood=0.0)


def flooded(scene: Scene) -> Sample:
    with scene.changing(2, BESIDE_FLOOD), scene.changing(3, FLOOD) as writer:
        for pid in (writer.pid, scene.clusters[3].etcd.pid, scene.clusters[3].proxy_pid):
            stand_back(pid)
        found = sample(scene)
        writer.kill()
        return Sample(*found, flood=rate(writer))


def beside(scene: Scene) -> Sample:
    with without_cluster3(scene):
        return flooded(scene)


@contextmanager
def without_cluster3(scene: Scene) -> Iterator[None]:
    """The daemon does not know it, another reader does."""
    text = scene.file3.read_text()
    scene.file3.unlink()
    scene.daemon.wait_for(lambda status: not link_of(status, "cluster3"), "the end of cluster3")
    with plain_watch(scene.clusters[3].etcd.address, "cilium/"):
        yield
    scene.file3.write_text(text)
    scene.daemon.wait_for(lambda status: link_of(status, "cluster3").get("state") == "ready", "cluster3")


def stand_back(pid: int) -> None:
    """All threads of a process run when nobody else wants to."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))


def rate(writer: "subprocess.Popen[str]") -> float:
    """Changes a second of a writer that has ended, by what it told every second."""
    assert writer.stdout
    told = [int(line) for line in writer.stdout if line.endswith("\n")]
    return (told[-1] - told[0]) / (len(told) - 1)


CASES = {"calm": calm, "flooded, another reader": beside, "flooded": flooded}


def measure(scene: Scene) -> tuple[list[dict[str, object]], list[Aim]]:
    found: dict[str, list[Sample]] = {name: [] for name in CASES}
    for number in range(ROUNDS):
        for name, case in CASES.items():
            found[name].append(case(scene))
            print(f"  round {number + 1}, {name}: {found[name][-1]}", file=sys.stderr, flush=True)
    rows: list[dict[str, object]] = [
        {
            "what": name,
            "p50 ms": spread([sample.p50 for sample in samples]),
            "p99 ms": spread([sample.p99 for sample in samples]),
            "daemon CPU %": 100 * statistics.median(sample.cpu for sample in samples),
            "flood, changes/s": round(statistics.median(sample.flood for sample in samples)),
        }
        for name, samples in found.items()
    ]
    return rows, [
        _aim("p99 beside a flood to p99 without", found["flooded"], found["calm"]),
        _aim("the same, to p99 while another reader is flooded", found["flooded"], found["flooded, another reader"]),
    ]


def _aim(name: str, one: list[Sample], other: list[Sample]) -> Aim:
    ratios = [a.p99 / b.p99 for a, b in zip(one, other, strict=True)]
    return Aim(name, "≤ 2", spread(ratios), statistics.median(ratios) <= 2)


def main() -> None:
    print("bench flood: others' changes beside a flood; about two minutes", file=sys.stderr, flush=True)
    with new_scene() as scene:
        report("flood", *measure(scene))


if __name__ == "__main__":
    main()
