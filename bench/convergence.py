"""How soon nodes that join are reached, from the Node object in their cluster's API to the packet, and the plan alone.

cluster2's node2 leaves and joins again, all its pods running; a pod of cluster1 asks one of them every 5 ms:

    Node object ──▶ agent ──▶ etcd ──▶ proxy ──▶ daemons of cluster1 ──▶ kernel ──▶ first answer

Then 1 000 nodes join at once, node2 among them: until the first answer from it, and until the kernel of a node of
cluster1 holds a route to each. Then the plan alone (bench/routing_plan.py), and what an event of the kernel costs
(bench/routing_events.py). `--quick` joins a few times only.
"""

import secrets
import socket
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from ipaddress import IPv4Network, ip_address

import yaml

from bench.report import Aim, report
from bench.routing_events import SIZES as EVENT_SIZES
from bench.routing_events import measure_events
from bench.routing_plan import SIZES, measure_plan
from datapath.maps import Maps
from datapath.pins import Pins
from meshd.testbed import netns
from meshd.testbed.layout import BPFFS
from meshd.testbed.objects import Object
from meshd.testbed.testbed import Testbed

JOINS, QUICK_JOINS = 20, 3
CROWD = 1000
CROWD_PODS = IPv4Network("100.64.0.0/10")
CROWD_NODES = IPv4Network("172.19.0.0/16")
SERVER = "20.0.1.10"  # on cluster2's node2
PORT = 8080
ASK_S = 0.005
DEADLINE_S = 60.0
JOIN_AIM_S, CROWD_AIM_S = 0.5, 5.0


def until(fact: Callable[[], object], what: str, *, poll_s: float = 0.002) -> float:
    """When it came true, monotonic seconds. Raises RuntimeError."""
    end = time.monotonic() + DEADLINE_S
    while not fact():
        if time.monotonic() > end:
            raise RuntimeError(f"not after {DEADLINE_S:.0f} s: {what}")
        time.sleep(poll_s)
    return time.monotonic()


def known_nodes(bed: Testbed) -> int:
    """Addresses of remote nodes that the kernel of cluster1's node2 holds."""
    with Maps(Pins(BPFFS, bed.layout.instance("cluster1", "node2")).folder) as maps:
        return len(maps.dump("md_node")) - len(bed.kubelet("cluster1").cluster.nodes)


class Asker:
    """Asks for a connection from a pod of cluster1, with a SYN every 5 ms until one is answered."""

    def __init__(self, bed: Testbed) -> None:
        self._namespace = bed.layout.pod("cluster1", "default", "frontend-1")

    def first_answer(self) -> float:
        """Monotonic seconds. Raises RuntimeError."""
        return netns.inside(self._namespace, self._ask)

    def is_answered(self) -> bool:
        return netns.inside(self._namespace, partial(self._connect, 0.3))

    def _ask(self) -> float:
        return until(partial(self._connect, ASK_S), f"{SERVER} answers", poll_s=0)

    def _connect(self, patience_s: float) -> bool:
        with closing(socket.socket()) as asking:
            asking.settimeout(patience_s)
            try:
                asking.connect((SERVER, PORT))
            except OSError:
                return False
        return True


def leave(bed: Testbed, node: Object, asker: Asker) -> None:
    bed.kubelet("cluster2").objects.delete(node)
    until(lambda: known_nodes(bed) == 1, "node2 has left")
    until(lambda: not asker.is_answered(), "node2 is not reached")


def measure_join(bed: Testbed, node: Object, joins: int) -> list[float]:
    """Seconds from the Node object to the first answer."""
    objects, asker, taken = bed.kubelet("cluster2").objects, Asker(bed), []
    for _ in range(joins):
        leave(bed, node, asker)
        start = time.monotonic()
        objects.write(node)
        taken.append(asker.first_answer() - start)
    return taken


def measure_crowd(bed: Testbed, node: Object) -> tuple[float, float]:
    """Seconds until the first answer from one of them, and until all are in the kernel."""
    asker = Asker(bed)
    leave(bed, node, asker)
    before, folder = known_nodes(bed), bed.layout.objects("cluster2")
    text = yaml.dump_all([*crowd(node), node], Dumper=yaml.CSafeDumper)
    start = time.monotonic()
    (folder / ".crowd").write_text(text)
    (folder / ".crowd").rename(folder / "crowd.yaml")
    answered = asker.first_answer() - start
    return answered, until(lambda: known_nodes(bed) == before + CROWD, "all are in the kernel") - start


def crowd(model: Object) -> list[Object]:
    """Nodes like the model, with names, addresses and PodCIDRs of their own, one less than CROWD."""
    made = []
    for number, prefix in zip(range(CROWD - 1), CROWD_PODS.subnets(new_prefix=24), strict=False):
        address = str(ip_address(int(CROWD_NODES.network_address) + 1 + number))
        metadata = {**model["metadata"], "name": f"crowd{number}"}
        spec = {"podCIDR": str(prefix), "podCIDRs": [str(prefix)]}
        status = {**model["status"], "addresses": [{"type": "InternalIP", "address": address}]}
        made.append({**model, "metadata": metadata, "spec": spec, "status": status})
    return made


def main() -> None:
    quick = "--quick" in sys.argv
    bed = Testbed(f"cv{secrets.token_hex(2)}")
    try:
        bed.up(progress=lambda what: print(f"  {what}", file=sys.stderr, flush=True))
        until(lambda: known_nodes(bed) == 2, "both nodes of cluster2 are known")
        node = bed.kubelet("cluster2").objects.get("Node", "node2", "")
        joins = measure_join(bed, node, QUICK_JOINS if quick else JOINS)
        answered, complete = measure_crowd(bed, node)
    finally:
        bed.down()
    median, what = statistics.median(joins), f"{CROWD} nodes join at once"
    rows: list[dict[str, object]] = [
        {"what": f"a node joins: first answer, {len(joins)} times", "unit": "s", "median": median, "worst": max(joins)},
        {"what": f"{what}: first answer from one", "unit": "s", "median": answered, "worst": "-"},
        {"what": f"{what}: all in the kernel", "unit": "s", "median": complete, "worst": "-"},
    ]
    aims = [
        Aim("a node joins: first answer, median", f"≤ {JOIN_AIM_S} s", median, median <= JOIN_AIM_S),
        Aim(f"{what}: all in the kernel", f"≤ {CROWD_AIM_S} s", complete, complete <= CROWD_AIM_S),
    ]
    plan_rows, plan_aims = measure_plan(SIZES[:1] if quick else SIZES)
    event_rows, event_aims = measure_events(EVENT_SIZES[:1] if quick else EVENT_SIZES)
    report("convergence", [*rows, *plan_rows, *event_rows], [*aims, *plan_aims, *event_aims])


if __name__ == "__main__":
    main()
