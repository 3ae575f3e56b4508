"""What an event of the kernel costs a daemon that routes to many nodes: until it has asked what the event may have
moved, and planned anew. In a namespace of its own, every node on-link, the node's own routes to all of them in the
kernel.
"""

import json
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import ip_network

from bench.report import Aim
from bench.routing_plan import Planner, record
from meshd.daemon.knownways import KnownWays
from meshd.daemon.mesh import REPLANNED
from meshd.daemon.netevents import EVERYTHING, Concern
from meshd.daemon.underlay import open_events
from meshd.testbed import netns
from routing.plan import End, Surroundings
from routing.routes import METRIC, PROTOCOL

SIZES = (1_000, 25_000)
TIMES = 5
EVENTS = {
    "a pod comes and goes": [
        "link add veth0 type veth peer name veth1",
        "link set veth0 up",
        "route add 10.0.0.9 dev veth0",
        "link del veth0",
    ],
    "the underlay's MTU changes": ["link set eth0 mtu {mtu}"],
    "everything is asked again (a rule)": ["rule add to 198.51.100.1 lookup 7", "rule del to 198.51.100.1 lookup 7"],
}
STANDSTILL = "the underlay's MTU changes: longest that others wait"


def measure_events(sizes: Sequence[int] = SIZES) -> tuple[list[dict[str, object]], list[Aim]]:
    """Rows for the report, and the aims. Each size in a process and a namespace of its own."""
    rows: list[dict[str, object]] = []
    costs: dict[str, list[float]] = {}
    for size in sizes:
        words = [sys.executable, "-m", "bench.routing_events", str(size)]
        for event, seconds in json.loads(subprocess.check_output(words, text=True)).items():
            median, worst = statistics.median(seconds), max(seconds)
            rows.append({"what": f"{event}, {size} nodes", "unit": "s", "median": median, "worst": worst})
            costs.setdefault(event, []).append(median)
    pod, _, rule, stand = (costs[event][-1] for event in (*EVENTS, STANDSTILL))
    return rows, [
        Aim(f"event of a pod, {sizes[-1]} nodes", "≤ 0.1 s", pod, pod <= 0.1),
        Aim(f"everything asked again, {sizes[-1]} nodes", "≤ 1 s", rule, rule <= 1),
        Aim(f"standstill at another MTU, {sizes[-1]} nodes", "≤ 0.1 s", stand, stand <= 0.1),
    ]


class Daemon:
    """As much of it as an event has to do with."""

    def __init__(self, size: int) -> None:
        self.planner, self.known, self.events = Planner(), KnownWays(), open_events()
        for number in range(size):
            self.planner.take(record(number))
        self.follow(EVERYTHING)

    def follow(self, concern: Concern) -> float:
        """The longest piece of it in the event loop, in seconds: the kernel is asked in another thread."""
        nodes = self.planner.nodes
        needs = nodes.needs()
        self.known.follow(needs.hops, concern)
        ends = {tunnel: End(9, "md_vxlan", 1500) for tunnel in needs.tunnels}
        start = time.perf_counter()
        nodes.surround(Surroundings(self.known.hops, ends, self.known.learned))
        pieces = [time.perf_counter() - start]
        while nodes.is_due:
            start = time.perf_counter()
            nodes.replan(REPLANNED)
            self.planner.routes.update()
            pieces.append(time.perf_counter() - start)
        return max(pieces)

    def concern(self) -> Concern:
        concern = Concern()
        try:
            while True:
                concern.take(self.events.recv(1 << 16), protocol=PROTOCOL)
        except BlockingIOError:
            return concern


def measured(size: int, change: Callable[[list[str]], None]) -> dict[str, list[float]]:
    """Seconds of the daemon, by event."""
    daemon = Daemon(size)
    assert not daemon.planner.nodes.waiting
    taken: dict[str, list[float]] = {}
    for event, commands in EVENTS.items():
        for time_ in range(TIMES):
            change([command.format(mtu=1400 + time_) for command in commands])
            start = time.perf_counter()
            longest = daemon.follow(daemon.concern())
            taken.setdefault(event, []).append(time.perf_counter() - start)
            if "MTU" in event:
                taken.setdefault(STANDSTILL, []).append(longest)
    return taken


def main(size: int) -> None:
    space = f"md-{secrets.token_hex(3)}-events"
    netns.ip([f"netns add {space}"])
    try:
        netns.ip(["link add eth0 type veth peer name other", "link set eth0 up", "link set other up"], namespace=space)
        netns.ip(["addr add 172.31.255.254/12 dev eth0"], namespace=space)
        prefixes = (str(ip_network((0x14000000 + (number << 8), 24))) for number in range(size))
        own = [f"route add {p} via 172.16.0.1 proto {PROTOCOL} metric {METRIC}" for p in prefixes]
        netns.ip(own, namespace=space)
        change = partial(netns.ip, namespace=space)
        print(json.dumps(netns.inside(space, lambda: measured(size, change))))
    finally:
        netns.ip([f"netns del {space}"])


if __name__ == "__main__":
    main(int(sys.argv[1]))
