"""Pod to pod through the mesh's tunnel, beside a kernel VXLAN device with static entries (bench/plain.py).

Ours: pods of 1500 bytes on an underlay of 1500, MSS clamped by the datapath; a testbed with everything running but the
NAT rules of its kindnet and kube-proxy, which the peer does not have either. Theirs: device and pods at the 1450 bytes
that VXLAN leaves. Five interleaved pairs; both ends, and with them the nodes' soft interrupts, on one CPU, because
across CPUs one measures wake-ups; the testbed's processes on the other one.
"""

import json
import os
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.plain import Plain
from bench.report import Aim, report, spread
from meshd.testbed import netns
from meshd.testbed.objects import Object
from meshd.testbed.process import listens
from meshd.testbed.testbed import Testbed

PAIRS = 5
SECONDS = 4
CPU = ("taskset", "-c", "1")
START_DEADLINE_S = 5.0
IPERF_PORT = 5201
QPERF_PORT = 19765
AIM = 0.98


@dataclass(frozen=True, slots=True)
class Way:
    """A pair of pods: how a command is started in each, and the server's address."""

    name: str
    client: Callable[..., "subprocess.Popen[str]"]
    server: Callable[..., "subprocess.Popen[str]"]
    address: str


def started(argv: list[str], enter: Callable[[], None] | None = None) -> "subprocess.Popen[str]":
    return subprocess.Popen([*CPU, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=enter)


def plain_way(plain: Plain) -> Way:
    return Way(
        "kernel VXLAN, static fdb",
        lambda *argv: started(plain.client(*argv)),
        lambda *argv: started(plain.server(*argv)),
        plain.server_address,
    )


def mesh_way(bed: Testbed) -> Way:
    client = bed.kubelet("cluster1").place_of(bed.pod("cluster1", "frontend-1"))
    pod: Object = bed.pod("cluster2", "rebel-base-1")
    server = bed.kubelet("cluster2").place_of(pod)
    return Way(
        "meshd tunnel",
        lambda *argv: started(list(argv), client.enter),
        lambda *argv: started(list(argv), server.enter),
        str(pod["status"]["podIP"]),
    )


def run(way: Way, server: list[str], port: int, client: list[str]) -> str:
    """Output of the client's program while the server's listens on `port`. Raises RuntimeError with what it said."""
    serving = way.server(*server)
    try:
        end = time.monotonic() + START_DEADLINE_S
        while not listens(serving.pid, port):
            if time.monotonic() > end or serving.poll() is not None:
                raise RuntimeError(f"{way.name}: {' '.join(server)} does not listen on {port}")
            time.sleep(0.01)
        asking = way.client(*client)
        output, errors = asking.communicate(timeout=SECONDS + 20)
    finally:
        serving.kill()
        serving.communicate()
    if asking.returncode:
        raise RuntimeError(f"{way.name}: {' '.join(client)}: {errors.strip() or output.strip()}")
    return output


def throughput(way: Way) -> float:
    """Gbit/s of one TCP stream, the median of its half seconds: a machine that stalls for one does not count.

    Cubic, as most nodes have it: BBR's pacing measures its own timers here.
    """
    client = ["iperf3", "-c", way.address, "-t", str(SECONDS), "-O", "1", "-i", "0.5", "-C", "cubic", "-J"]
    intervals = json.loads(run(way, ["iperf3", "-s"], IPERF_PORT, client))["intervals"]
    rates = [float(part["sum"]["bits_per_second"]) for part in intervals if not part["sum"]["omitted"]]
    return statistics.median(rates) / 1e9


def request_response(way: Way) -> float:
    """One-byte requests and answers per second over one TCP connection."""
    client = ["qperf", way.address, "-t", str(SECONDS), "-v", "-uu", "-m", "1", "tcp_lat"]
    output = run(way, ["qperf"], QPERF_PORT, client)
    messages = next(line.split()[2] for line in output.splitlines() if line.split()[:1] == ["msg_rate"])
    return float(messages) / 2  # each way counts


MEASURES: dict[str, tuple[str, Callable[[Way], float]]] = {
    "throughput": ("Gbit/s", throughput),
    "request/response": ("1/s", request_response),
}


def measure(ours: Way, theirs: Way) -> tuple[list[dict[str, object]], list[Aim]]:
    rows: list[dict[str, object]] = []
    aims = []
    for name, (unit, figure) in MEASURES.items():
        mine: list[float] = []
        peers: list[float] = []
        for number in range(PAIRS):
            # Who goes first changes, so that a drift of the machine favours nobody.
            for way in (ours, theirs) if number % 2 else (theirs, ours):
                (mine if way is ours else peers).append(figure(way))
            print(
                f"  {name}, pair {number + 1}: {mine[-1]:.2f} and {peers[-1]:.2f} {unit}", file=sys.stderr, flush=True
            )
        ratios = [a / b for a, b in zip(mine, peers, strict=True)]
        rows.append(
            {"what": name, "unit": unit, ours.name: spread(mine), theirs.name: spread(peers), "ratio": spread(ratios)}
        )
        median = statistics.median(ratios)
        aims.append(Aim(f"{name}, median of {PAIRS} ratios", f"≥ {AIM}", median, median >= AIM))
    return rows, aims


def main() -> None:
    os.sched_setaffinity(0, {0})  # the testbed's processes inherit it: the other CPU is the two ends'
    bed = Testbed(f"tun{secrets.token_hex(2)}")
    try:
        print("bench tunnel: two clusters; about two minutes", file=sys.stderr, flush=True)
        bed.up(progress=lambda what: print(f"  {what}", file=sys.stderr, flush=True))
        for cluster in bed.clusters:
            for node in cluster.nodes:
                netns.nft("flush ruleset\n", namespace=bed.layout.node(cluster.name, node.name))
        with Plain("vxlan") as plain:
            print("the peer is set up with:", *(" ".join(c) for c in plain.commands), sep="\n  ", file=sys.stderr)
            rows, aims = measure(mesh_way(bed), plain_way(plain))
    finally:
        bed.down()
    report("tunnel", rows, aims)


if __name__ == "__main__":
    main()
