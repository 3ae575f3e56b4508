"""The plan alone: time, memory and growth for many nodes, and what one change costs among them."""

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path

from bench.report import Aim
from meshd.daemon.nodes import Needs, Nodes
from meshd.daemon.prefixes import Prefixes
from meshd.daemon.wantedroutes import WantedRoutes
from routing.plan import End, Hop, Mode, Settings, Surroundings
from wire.records import CIDR, Node, NodeAddress

SIZES = (1_000, 5_000, 25_000)
CHANGES = 200


def record(number: int) -> Node:
    """A node of one of 200 clusters."""
    return Node(
        name=f"n{number}",
        cluster=f"cluster{2 + number % 200}",
        cluster_id=2 + number % 200,
        addresses=[NodeAddress("InternalIP", str(ip_address(0xAC100000 + number)))],
        ipv4_cidr=CIDR.of(ip_network((0x14000000 + (number << 8), 24))),
        annotations={"meshd.io/tunnel": "vxlan:8473"},
    )


def answers(needs: Needs) -> Surroundings:
    hop = Hop(2, "eth0", 1500, None)
    return Surroundings(dict.fromkeys(needs.hops, hop), {t: End(9, "md_vxlan", 1500) for t in needs.tunnels})


class Planner:
    """What the daemon computes from nodes."""

    def __init__(self) -> None:
        rank = lambda cluster: (1, int(cluster.removeprefix("cluster")))  # noqa: E731
        self.nodes = Nodes(Settings("cluster1", "n", Mode.HYBRID), rank)
        self.prefixes = Prefixes("cluster1", rank, lambda record: None)
        self.routes = WantedRoutes(self.nodes, self.prefixes)

    def take(self, node: Node) -> None:
        lookup = {node.name: node}.get
        self.prefixes.update_nodes(node.cluster, [node.name], lookup)
        self.nodes.update(node.cluster, [node.name], lookup)

    def settle(self) -> None:
        if self.nodes.waiting:
            self.nodes.surround(answers(self.nodes.needs()))
            self.nodes.replan()
        self.routes.update()


def measure_plan(sizes: Sequence[int] = SIZES) -> tuple[list[dict[str, object]], list[Aim]]:
    """Rows for the report, and the aims. Each size in a process of its own: memory is what that process grew by."""
    rows: list[dict[str, object]] = []
    per_node = []
    for size in sizes:
        words = [sys.executable, "-m", "bench.routing_plan", str(size)]
        seconds, megabytes, change = json.loads(subprocess.check_output(words, text=True))
        per_node.append(seconds / size)
        what = f"plan of {size} nodes"
        rows.append({"what": what, "unit": "s", "median": seconds, "worst": "-"})
        rows.append({"what": f"{what}: memory", "unit": "MB", "median": megabytes, "worst": "-"})
        rows.append({"what": f"{what}: one change", "unit": "µs", "median": change, "worst": "-"})
    growth = per_node[-1] / per_node[0]
    return rows, [Aim(f"plan: time per node, {sizes[-1]} nodes against {sizes[0]}", "≤ 1.5", growth, growth <= 1.5)]


def measured(size: int) -> tuple[float, float, float]:
    """Seconds and megabytes of a plan of so many nodes, microseconds of a change."""
    records = [record(number) for number in range(size)]
    gc.collect()
    before, start = _resident_bytes(), time.perf_counter()
    planner = _planned(records)
    seconds = time.perf_counter() - start
    megabytes = (_resident_bytes() - before) / 1e6
    start = time.perf_counter()
    for number in range(CHANGES):
        planner.take(record(number % size))
        planner.settle()
    return seconds, megabytes, (time.perf_counter() - start) / CHANGES * 1e6


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _planned(records: list[Node]) -> Planner:
    planner = Planner()
    for each in records:
        planner.take(each)
    planner.settle()
    return planner


if __name__ == "__main__":
    print(json.dumps(measured(int(sys.argv[1]))))
