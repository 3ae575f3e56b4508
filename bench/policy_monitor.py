"""What a flood of drops costs the daemon while `meshd monitor` watches: on the testbed, with everything running.

    x-wing, whose egress is closed ── UDP as fast as one process can ──▶ policy_out drops, tells some, counts all
                                        cluster1/daemon-node2 reads ──▶ `meshd monitor --drops -o json`

The sender has a CPU of its own; daemon and monitor share the other one.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.report import Aim, report
from meshd.socket import SocketError, get
from meshd.testbed import process
from meshd.testbed.parts import socket_path
from meshd.testbed.process import Place
from meshd.testbed.testbed import Testbed

FLOOD_S = 10.0
DEADLINE_S = 30.0
RATE = 100_000
TICKS = os.sysconf("SC_CLK_TCK")
DAEMON, POD = "cluster1/daemon-node2", "x-wing"
POLICY = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "x-wing", "namespace": "default"},
    "spec": {
        "endpointSelector": {"matchLabels": {"name": "x-wing"}},
        "egress": [{"toEndpoints": [{"matchLabels": {"name": "inventory"}}]}],
    },
}
SEND = """
import socket, sys, time
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.connect(("10.0.0.1", 9))
end, sent = time.monotonic() + float(sys.argv[1]), 0
while time.monotonic() < end:
    for _ in range(500):
        out.send(b"x")
    sent += 500
print(sent)
"""


def until(fact: Any, what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not fact():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come within {DEADLINE_S:.0f} s")
        time.sleep(0.05)


def cpu_s(pid: int) -> float:
    """Seconds that a process has computed, in user space and in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(bed: Testbed, *, watched: bool) -> dict[str, float]:
    """One flood, with or without somebody who watches."""
    path = socket_path(bed.layout, "cluster1", "node2", "daemon")
    record = process.load(bed.layout.processes, bed.part(DAEMON).record_name)
    assert record is not None
    pod = bed.layout.pod("cluster1", "default", POD)
    rest, own = {0}, {max(os.sched_getaffinity(0))}
    os.sched_setaffinity(record.pid, rest)
    argv = [sys.executable, "-m", "meshd", "monitor", "--drops", "-o", "json", "--run-dir", str(bed.layout.run)]
    argv += ["--instance", bed.layout.instance("cluster1", "node2")]
    monitor = subprocess.Popen(argv, stdout=subprocess.PIPE) if watched else None
    try:
        if monitor:
            os.sched_setaffinity(monitor.pid, rest)
            time.sleep(2)
        group = bed.cgroups / "cluster1-node2"
        before, told = get(path, "/v1/drops"), get(path, f"/v1/verdicts/{1 << 62}")["told"]
        began, cpu = time.monotonic(), cpu_s(record.pid)
        monitor_cpu = cpu_s(monitor.pid) if monitor else 0.0

        def enter() -> None:
            Place(pod, group).enter()
            os.sched_setaffinity(0, own)

        subprocess.run([sys.executable, "-c", SEND, str(FLOOD_S)], check=True, preexec_fn=enter, capture_output=True)
        took = time.monotonic() - began
        used = cpu_s(record.pid) - cpu
        after = get(path, "/v1/drops")
        monitor_used = cpu_s(monitor.pid) - monitor_cpu if monitor else 0.0
        all_told = get(path, f"/v1/verdicts/{1 << 62}")["told"] - told
        if monitor:
            time.sleep(1)
    finally:
        if monitor:
            monitor.send_signal(signal.SIGTERM)
    shown = lost = 0
    if monitor:
        output, _ = monitor.communicate()
        for line in map(json.loads, output.splitlines()):
            shown += line.get("count", 0)
            lost += line.get("lost", 0)
    dropped = _grown(before, after, "policy-closed")
    return {
        "drops/s": dropped / took,
        "told/s": all_told / took,
        "not told": _grown(before, after, "event-suppressed"),
        "missing": dropped - all_told - _grown(before, after, "event-suppressed"),
        "forgotten": lost,
        "shown": shown,
        "daemon CPU %": 100 * used / took,
        "monitor CPU %": 100 * monitor_used / took,
        "daemon MB": memory_mb(record.pid),
    }


def _grown(before: Any, after: Any, reason: str) -> float:
    return float(after[reason]["packets"] - before[reason]["packets"])


def in_force(bed: Testbed) -> bool:
    try:
        policies = get(socket_path(bed.layout, "cluster1", "node2", "daemon"), "/v1/policies")
    except SocketError:
        return False
    return any(policy["in_force"] for policy in policies)


def main() -> None:
    bed = Testbed(f"b{secrets.token_hex(3)}")
    try:
        bed.up()
        bed.apply("cluster1", POLICY)
        until(lambda: in_force(bed), "the policy")
        found = {"nobody watches": measure(bed, watched=False), "monitor -o json": measure(bed, watched=True)}
    finally:
        bed.down()
    rows: list[dict[str, object]] = [{"what": name, **figures} for name, figures in found.items()]
    worst = max(figures["daemon CPU %"] for figures in found.values())
    rate = min(figures["drops/s"] for figures in found.values())
    missing = sum(figures["missing"] for figures in found.values())
    report(
        "policy_monitor",
        rows,
        [
            Aim("drops in the kernel, 1/s", f"≥ {RATE}", rate, rate >= RATE),
            Aim("CPU of the daemon, %", "≤ 10", worst, worst <= 10),
            Aim("drops neither told nor counted", "0", missing, missing == 0),
        ],
    )


if __name__ == "__main__":
    main()
