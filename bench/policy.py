"""What policy costs: packets through the loaded programs, and computing entries. (Telling of drops: policy_monitor.)

Packets: the client of a tunnelled pair gets a policy at egress and the server one at ingress, with so many entries
each; or other pods of both nodes get one, and the pair has none. Interleaved with no policy, both ends on one CPU.
Computing: a hundred local identities, policies and identities without any kernel, each size in a process of its own.
"""

import argparse
import resource
import secrets
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.report import Aim, report, spread
from bench.tunnel import Way, request_response, run, started, throughput
from policy.engine import Engine
from policy.model import PolicyKind, PolicyRef
from policy.parsing import parse_policy
from policy.ports import TCP, Block
from policy.scope import Scope
from tests.support.enforced import EGRESS, INGRESS, allow, police, release
from tests.support.twonodes import TwoNodes, add_pod, two_nodes

PAIRS = 3
SIZES = (10, 1_000)
AIM, FREE_AIM = 0.95, 0.99
NONE, OTHERS = "no policy", "another pod's policy"
POLICIES = 1_000
GROWTH = (1_000, 20_000, 100_000)
CONNECT_PORT, WARM_S, CONNECT_S = 5301, 1, 2
Rows = list[dict[str, object]]


def way(nodes: TwoNodes) -> Way:
    def enter(namespace: str, *argv: str) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{namespace}", *argv]

    client, server = nodes.client.namespace.name, nodes.server.namespace.name
    return Way(
        "policed pair",
        lambda *argv: started(enter(client, *argv)),
        lambda *argv: started(enter(server, *argv)),
        str(nodes.server.v4),
    )


SERVE = """
import socket, sys
server = socket.create_server(("", int(sys.argv[1])), backlog=512)
while True:
    server.accept()[0].close()
"""
CONNECT = """
import socket, sys, time
host, port, warm, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
def connect(seconds):
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.create_connection((host, port)) as client:
            client.recv(1)
        count += 1
    return count / seconds
connect(warm)
print(connect(seconds))
"""


def connections(pair: Way) -> float:
    """New TCP connections per second, one after the other, each closed by the server. The first second does not count,
    as iperf3 omits one: what was changed for a case is freed then.
    """
    client = [sys.executable, "-c", CONNECT, pair.address, str(CONNECT_PORT), str(WARM_S), str(CONNECT_S)]
    return float(run(pair, [sys.executable, "-c", SERVE, str(CONNECT_PORT)], CONNECT_PORT, client))


MEASURES: dict[str, tuple[str, Callable[[Way], float]]] = {
    "throughput": ("Gbit/s", throughput),
    "request/response": ("1/s", request_response),
    "connections": ("1/s", connections),
}


def set_policy(nodes: TwoNodes, count: int) -> None:
    """`count` entries for each of the two pods, one of which lets the other in; 0: no policy."""
    sides = ((nodes.a, nodes.client, EGRESS, nodes.server), (nodes.b, nodes.server, INGRESS, nodes.client))
    for node, pod, direction, other in sides:
        if not count:
            release(node, pod)
            continue
        strangers = [allow(pod, direction, (9 << 16) + n, Block(TCP, 8000 + n, 24)) for n in range(count - 1)]
        police(node, pod, *strangers, allow(pod, direction, other.identity), closed=(INGRESS, EGRESS))


def set_others(nodes: TwoNodes, count: int) -> None:
    """So many entries for a pod beside each of the two; 0: no policy."""
    for node, pod in ((nodes.a, nodes.bystander), (nodes.b, nodes.b.pods["p2"])):
        if count:
            police(node, pod, *(allow(pod, INGRESS, (9 << 16) + n, Block(TCP, 8000 + n, 24)) for n in range(count)))
        else:
            release(node, pod)


def cases(nodes: TwoNodes) -> dict[str, Callable[[], None]]:
    """What is compared, and how it is brought about."""

    def only(entries: int, others: int) -> None:
        set_policy(nodes, entries)
        set_others(nodes, others)

    sized = {f"{size} entries": partial(only, size, 0) for size in SIZES}
    return {NONE: partial(only, 0, 0), OTHERS: partial(only, 0, SIZES[-1]), **sized}


def packets(folder: Path, pairs: int) -> tuple[Rows, list[Aim]]:
    rows: Rows = []
    aims = []
    with two_nodes(folder) as nodes:
        add_pod(nodes.machine, nodes.b, "p2", "10.2.0.2", "fd00:2::2", 0x020202)
        pair, prepared = way(nodes), cases(nodes)
        for name, (unit, figure) in MEASURES.items():
            found: dict[str, list[float]] = {case: [] for case in prepared}
            for number in range(pairs):
                for case in reversed(prepared) if number % 2 else prepared:
                    prepared[case]()
                    found[case].append(figure(pair))
                    print(f"  {name}, {case}: {found[case][-1]:.2f} {unit}", file=sys.stderr, flush=True)
            rows.append({"what": name, "unit": unit, **{case: spread(values) for case, values in found.items()}})
            for case in (OTHERS, *(case for case in prepared if case not in (NONE, OTHERS))):
                ratio = statistics.median(b / a for a, b in zip(found[NONE], found[case], strict=True))
                least = FREE_AIM if case == OTHERS else AIM
                aims.append(Aim(f"{name}, {case} beside no policy", f"≥ {least}", ratio, ratio >= least))
    return rows, aims


def identity_labels(number: int) -> dict[str, str]:
    return {
        "app": f"app{number % 1000}",
        "team": f"team{number % 500}",
        "io.kubernetes.pod.namespace": f"ns{number % 100}",
        "io.cilium.k8s.policy.cluster": "cluster1" if number % 2 else "cluster2",
    }


def fill(engine: Engine, identities: int) -> None:
    """A node with a hundred identities of its own, in a mesh of so many, under 1 000 policies."""
    for number in range(identities):
        engine.set_identity(65536 + number, identity_labels(number))
        if number % 2 and number < 200:
            engine.set_present(65536 + number, True)
    for number in range(POLICIES):
        ref = PolicyRef(PolicyKind.CILIUM, f"ns{number % 100}", f"p{number}")
        anywhere = [{"key": "io.cilium.k8s.policy.cluster", "operator": "Exists"}]
        peer = {"matchLabels": {"team": f"team{number % 500}"}, "matchExpressions": anywhere}
        rule = {"fromEndpoints": [peer], "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}]}
        spec = {"endpointSelector": {"matchLabels": {"app": f"app{number}"}}, "ingress": [rule]}
        engine.set_policy(ref, parse_policy(ref, {"spec": spec}, Scope("cluster1")))
    engine.compute()


def compute(identities: int) -> tuple[dict[str, object], float]:
    """The row of one size, and microseconds for one identity more."""
    empty = memory_mb()
    engine = Engine()
    begun = time.monotonic()
    fill(engine, identities)
    full = time.monotonic() - begun
    used = memory_mb() - empty
    times = []
    for number in range(identities, identities + 200):
        begun = time.monotonic()
        engine.set_identity(65536 + number, identity_labels(number))
        engine.compute()
        times.append((time.monotonic() - begun) * 1e6)
    median = statistics.median(times)
    entries = len(engine.table())
    what = f"{POLICIES} policies, {identities} identities"
    row = {"what": what, "entries": entries, "all at once, s": full, "memory, MB": used, "one more, µs": median}
    return row, median


def memory_mb() -> float:
    """What this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def computing() -> tuple[Rows, list[Aim]]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as processes:
        found = list(processes.map(compute, GROWTH))
    growth = found[-1][1] / found[0][1]
    aims = [Aim("one more identity, at 100 000 beside 1 000", "≤ 2 (flat)", growth, growth <= 2)]
    return [row for row, _ in found], aims


def main() -> None:
    parser = argparse.ArgumentParser(description="What policy costs; about three minutes.")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="rounds of packets")
    parser.add_argument("--only", choices=["packets", "computing"])
    arguments = parser.parse_args()
    parts: dict[str, Callable[[Path], tuple[Rows, list[Aim]]]] = {
        "computing": lambda folder: computing(),
        "packets": lambda folder: packets(folder, arguments.pairs),
    }
    for name, part in parts.items():
        if arguments.only in (None, name):
            with TemporaryDirectory(prefix=f"policy-{secrets.token_hex(2)}") as folder:
                rows, aims = part(Path(folder))
            report(f"policy-{name}", rows, aims)


if __name__ == "__main__":
    main()
