"""What it costs to tell 100 watchers, and whether anything is lost: our proxy (mTLS) and `etcd grpc-proxy` (without).

Two ways of writing: 100 single puts/s; 40 transactions/s of 50 puts, as the agent writes. The watchers stand on 10
connections (ten watches on one stream each) or on 100. Ours and theirs are measured in turns, ROUNDS times for SECONDS
each, so that both meet the same machine; told are medians, and the ratio of the two that ran beside each other. First
1 000 idle watchers on 250 connections.

In the table: CPU seconds in 10 s of the proxy, of the readers and of etcd, and what of ours nobody gets below: only
encrypting and sending the same bytes to the same connections (bench/tls_floor.py); how much later than from etcd itself
an event came from the proxy (p50, p99); how many watches etcd says it has besides the one that this is compared with.
`--only 100/100 40x50/100` takes some cases alone.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from bench.etcd_peers import Peers, cpu_s, rss_mb, running, watchers_at
from bench.report import Aim, report, spread
from certs.names import server_name

SECONDS, ROUNDS = 5.0, 3
WATCHERS = 100
IDLE_CONNECTIONS, IDLE_WATCHERS = 250, 1_000
CORES = 2
SATURATED = 0.9  # of the cores
PREFIX = "cilium/state/ip/v1/default/"
RECORD = (
    '{"IP":"10.0.%d.%d","Mask":null,"HostIP":"172.18.1.11","ID":65%03d,"Key":0,"Metadata":"",'
    '"K8sNamespace":"default","K8sPodName":"rebel-base-%d","K8sServiceAccount":"default"}'
)
ROOT = Path(__file__).parents[1]
SETTLE_S = 0.5
FLOOR_S = 3.0


@dataclass(frozen=True)
class Writing:
    """A way to write; `cpu_aim` is how much of the peer's CPU ours may take."""

    name: str
    word: str
    rate: int
    puts: int
    cpu_aim: float


WRITINGS = [Writing("100 puts/s", "100", 100, 1, 1.0), Writing("40 × 50 puts/s", "40x50", 40, 50, 0.5)]
CASES = {f"{writing.word}/{connections}": (writing, connections) for writing in WRITINGS for connections in (10, 100)}
Row = dict[str, Any]


@contextmanager
def readers(peers: Peers, target: str, connections: int, watchers: int, *, compare: bool = True) -> Iterator[Any]:
    """A process of readers, all of whose watches are there."""
    secure = [str(peers.certificate), server_name("c1")] if target == peers.proxy.address else ["", ""]
    command = [sys.executable, "-m", "bench.watch_readers", PREFIX, str(connections), str(watchers), target, *secure]
    command += [peers.etcd.address] if compare else []
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise RuntimeError("the readers did not get their watches")
        yield process
    finally:
        process.kill()
        process.communicate()


def write(peers: Peers, writing: Writing, numbers: Iterator[int]) -> int:
    """Writes for SECONDS at the rate; returns the last revision."""
    began, revision = time.monotonic(), 0
    for turn in range(int(SECONDS * writing.rate)):
        time.sleep(max(0.0, began + turn / writing.rate - time.monotonic()))
        items = {}
        for number in (next(numbers) for _ in range(writing.puts)):
            host = number % 20_000
            items[f"{PREFIX}10.0.{host >> 8}.{host & 255}"] = RECORD % (host >> 8, host & 255, host % 1000, number)
        if writing.puts == 1:
            ((key, value),) = items.items()
            revision = peers.etcd.put(key, value)
        else:
            revision = peers.etcd.put_all(items)
    return revision


def measure(peers: Peers, writing: Writing, connections: int, ours: bool, numbers: Iterator[int]) -> Row:
    """One run of one of the two; CPU in seconds of 10 s."""
    with ExitStack() as stack:
        target, pid = (peers.proxy.address, peers.proxy.pid) if ours else stack.enter_context(peers.theirs())
        process = stack.enter_context(readers(peers, target, connections, WATCHERS // connections))
        time.sleep(SETTLE_S)
        before, etcd_before, began = cpu_s(pid), cpu_s(peers.etcd.pid), time.monotonic()
        own_before = time.process_time()
        revision = write(peers, writing, numbers)
        watches = watchers_at(peers.etcd)
        process.stdin.write(f"{revision}\n")
        process.stdin.flush()
        heard = json.loads(process.stdout.readline())
        took = time.monotonic() - began
        cpu, etcd_cpu = cpu_s(pid) - before, cpu_s(peers.etcd.pid) - etcd_before
        writer = time.process_time() - own_before
    expected = int(SECONDS * writing.rate) * writing.puts
    whole = heard["alike"] and heard["ordered"] and heard["per_watcher"] == expected
    busy = (cpu + etcd_cpu + heard["cpu_s"] + writer) / took / CORES
    scale = 10 / SECONDS
    return {
        "writing": writing.name,
        "conns": connections,
        "proxy": "meshd" if ours else "grpc-proxy",
        "CPU s": round(cpu * scale, 2),
        "TLS alone": "",
        "bytes": heard["bytes"] // max(heard["messages"], 1),
        "p50 +ms": round(heard["added_p50_ms"], 2),
        "p99 +ms": round(heard["added_p99_ms"], 2),
        "messages": heard["messages"],
        "whole": "yes" if whole else "NO",
        "watches": watches - 1,  # less the one that is compared with
        "readers": round(heard["cpu_s"] * scale, 2),
        "etcd": round(etcd_cpu * scale, 2),
        "saturated": "yes" if busy > SATURATED else "",
    }


def floor(peers: Peers, row: Row) -> float:
    """CPU seconds in 10 s of sending messages as they were heard, all watchers of a connection in one write."""
    size = row["bytes"] * (WATCHERS // row["conns"])
    numbers = [row["conns"], size, round(row["messages"] / WATCHERS / SECONDS), FLOOR_S]
    command = [sys.executable, "-m", "bench.tls_floor", str(peers.proxy.certs), *map(str, numbers)]
    took = float(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)
    return round(took * 10 / FLOOR_S, 2)


def summary(runs: list[Row]) -> Row:
    """One row of several runs."""
    row: Row = {}
    for name, value in runs[0].items():
        values = [run[name] for run in runs]
        if name == "CPU s":
            row[name] = spread(values)
        elif isinstance(value, str):
            row[name] = next((one for one in values if one != value), value)  # what went wrong once is told
        else:
            row[name] = max(values) if name == "watches" else round(statistics.median(values), 2)
    return row


def compare(peers: Peers, case: str, numbers: Iterator[int]) -> tuple[list[Row], list[float]]:
    """Both rows of a case, ours first, and the ratios of the pairs."""
    runs: dict[bool, list[Row]] = {True: [], False: []}
    for turn in range(ROUNDS):
        for ours in (turn % 2 == 0, turn % 2 == 1):
            run = measure(peers, *CASES[case], ours, numbers)
            runs[ours].append(run)
            say(", ".join(f"{name}: {value}" for name, value in run.items() if value != ""))
    pairs = zip(runs[True], runs[False], strict=True)
    rows = [summary(runs[True]), summary(runs[False])]
    rows[0]["TLS alone"] = str(floor(peers, rows[0]))
    return rows, [ours["CPU s"] / max(theirs["CPU s"], 0.01) for ours, theirs in pairs]


def idle(peers: Peers) -> tuple[float, int]:
    """Memory with the idle watchers, in MB, and how many watches etcd has."""
    with readers(peers, peers.proxy.address, IDLE_CONNECTIONS, IDLE_WATCHERS // IDLE_CONNECTIONS, compare=False):
        return rss_mb(peers.proxy.pid), watchers_at(peers.etcd)


def aims_of(case: str, rows: list[Row], ratios: list[float]) -> Iterator[Aim]:
    writing, connections = CASES[case]
    name = f"{writing.name}, {connections} connections"
    mark = ", saturated" if any(row["saturated"] for row in rows) else ""
    met = statistics.median(ratios) <= writing.cpu_aim
    yield Aim(f"{name}: CPU of grpc-proxy's{mark}", f"≤ {writing.cpu_aim}", spread(ratios), met)
    if writing.puts == 1:
        late = rows[0]["p99 +ms"]
        yield Aim(f"{name}: added p99 in ms", "≤ 10", late, late <= 10)
    whole = rows[0]["whole"]
    yield Aim(f"{name}: nothing lost, in order", "always", whole, whole == "yes")


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="What it costs to tell 100 watchers; about three minutes.")
    parser.add_argument("--only", choices=CASES, nargs="+", help="some cases alone")
    only = parser.parse_args().only
    rows: list[Row] = []
    aims: list[Aim] = []
    numbers = count()
    with running() as peers:
        memory, watches = idle(peers)
        say(f"{IDLE_WATCHERS} idle watchers: {memory:.0f} MB")
        for case in only or CASES:
            pair, ratios = compare(peers, case, numbers)
            rows += pair
            aims += aims_of(case, pair, ratios)
    one = all(row["watches"] == 1 for row in rows if row["proxy"] == "meshd")
    aims.append(Aim("idle watchers: RSS in MB", "≤ 250", memory, memory <= 250))
    aims.append(Aim("watches of ours at etcd, throughout", "1", watches, one and watches == 1))
    report("proxy_fanout", rows, aims)


if __name__ == "__main__":
    main()
