"""What it costs to tell 100 watchers, and whether anything is lost: our proxy (mTLS) and `etcd grpc-proxy` (without).

Two ways of writing, each for 10 s: 100 single puts/s; 40 transactions/s of 50 puts, as the agent writes. The watchers
stand on 10 connections (ten watches on one stream each) or on 100. First 1 000 idle watchers on 250 connections.

In the table: CPU seconds of the proxy, of the readers and of etcd, and what of ours nobody gets below: encrypting and
sending the same bytes to the same connections, without anything else (bench/tls_floor.py); how much later than from
etcd itself an event came from the proxy (p50, p99); how many watches etcd says it has besides the one that this is
compared with.
"""

import json
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
from bench.report import Aim, report
from certs.names import server_name

SECONDS = 10.0
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
    rate: int
    puts: int
    cpu_aim: float


WRITINGS = [Writing("100 puts/s", 100, 1, 1.0), Writing("40 × 50 puts/s", 40, 50, 0.5)]


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


def measure(peers: Peers, writing: Writing, connections: int, ours: bool, numbers: Iterator[int]) -> dict[str, object]:
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
    return {
        "writing": writing.name,
        "conns": connections,
        "proxy": "meshd, mTLS" if ours else "etcd grpc-proxy",
        "CPU s": round(cpu, 2),
        "TLS alone": floor(peers, connections, heard) if ours else "",
        "p50 +ms": round(heard["added_p50_ms"], 2),
        "p99 +ms": round(heard["added_p99_ms"], 2),
        "messages": heard["messages"],
        "whole, in order": "yes" if whole else "NO",
        "watches": watches - 1,  # less the one that is compared with
        "readers": round(heard["cpu_s"], 2),
        "etcd": round(etcd_cpu, 2),
        "saturated": "yes" if busy > SATURATED else "",
    }


def floor(peers: Peers, connections: int, heard: dict[str, int]) -> float:
    """CPU seconds of sending messages of the size that was heard, all watchers of a connection in one write."""
    size = heard["bytes"] // heard["messages"] * (WATCHERS // connections)
    numbers = [connections, size, round(heard["messages"] / WATCHERS / SECONDS), FLOOR_S]
    command = [sys.executable, "-m", "bench.tls_floor", str(peers.proxy.certs), *map(str, numbers)]
    took = float(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)
    return round(took * SECONDS / FLOOR_S, 2)


def idle(peers: Peers) -> tuple[float, int]:
    """Memory with the idle watchers, in MB, and how many watches etcd has."""
    with readers(peers, peers.proxy.address, IDLE_CONNECTIONS, IDLE_WATCHERS // IDLE_CONNECTIONS, compare=False):
        return rss_mb(peers.proxy.pid), watchers_at(peers.etcd)


def aims_of(rows: list[dict[str, Any]]) -> Iterator[Aim]:
    for writing in WRITINGS:
        for connections in (10, 100):
            ours, theirs = (row for row in rows if (row["writing"], row["conns"]) == (writing.name, connections))
            name = f"{writing.name}, {connections} connections"
            ratio = ours["CPU s"] / max(theirs["CPU s"], 0.01)
            mark = ", saturated" if ours["saturated"] or theirs["saturated"] else ""
            yield Aim(f"{name}: CPU of grpc-proxy's{mark}", f"≤ {writing.cpu_aim}", ratio, ratio <= writing.cpu_aim)
            if writing.puts == 1:
                late = ours["p99 +ms"]
                yield Aim(f"{name}: added p99 in ms", "≤ 10", late, late <= 10)
    whole = all(row["whole, in order"] == "yes" for row in rows if row["proxy"].startswith("meshd"))
    yield Aim("nothing lost, in order", "always", "yes" if whole else "no", whole)


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def main() -> None:
    print("bench proxy_fanout: about two minutes", file=sys.stderr, flush=True)
    rows: list[dict[str, object]] = []
    numbers = count()
    with running() as peers:
        memory, watches = idle(peers)
        say(f"{IDLE_WATCHERS} idle watchers: {memory:.0f} MB")
        for writing in WRITINGS:
            for connections in (10, 100):
                for ours in (True, False):
                    rows.append(measure(peers, writing, connections, ours, numbers))
                    say(", ".join(f"{name}: {value}" for name, value in rows[-1].items() if value != ""))
    one = all(row["watches"] == 1 for row in rows if row["proxy"] == "meshd, mTLS")
    aims = [*aims_of(rows), Aim("idle watchers: RSS in MB", "≤ 250", memory, memory <= 250)]
    aims.append(Aim("watches of ours at etcd, throughout", "1", watches, one and watches == 1))
    report("proxy_fanout", rows, aims)


if __name__ == "__main__":
    main()
