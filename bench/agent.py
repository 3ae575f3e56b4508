"""The agent at full size: 1 000 nodes, 100 000 pods, 5 000 global services and identities, from an API server over
HTTPS into a real etcd. How long from the start to the canaries and on what; memory; the lag and cost of 500 changes a
second at 1 000, 10 000 and 100 000 pods; and a bare loop of the same transactions, in the same run.

The API server is the test suite's, in this process; the agent is a process of its own.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from threading import Thread
from typing import Any

from bench.agent_load import Load, address
from bench.report import Aim, percentile, report
from meshd.agent.etcd.connection import EtcdConnection
from meshd.agent.etcd.ledger import Write
from meshd.agent.etcd.lookout import Lookout
from meshd.agent.etcd.transactions import Fence
from meshd.agent.etcd.writer import IN_FLIGHT, split_batches
from meshd.etcd import Endpoint
from tests.support.agent import AgentProcess
from tests.support.apiserver import ApiServer
from tests.support.etcd import Etcd
from wire import keys

LOADS = [Load(nodes=10, pods=1_000, workloads=50), Load(nodes=100, pods=10_000, workloads=500)]
FULL = Load(nodes=1_000, pods=100_000, workloads=5_000)
RATE = 500
SECONDS, FULL_SECONDS = 5, 20
STARTS = 3  # each beside its own bare loop: the median ratio counts
MAX_RSS_MB = 400
DEADLINE_S = 120.0
IPS = "cilium/state/ip/v1/default/"


class Scene:
    """A cluster of this size, an empty etcd, and an agent between them."""

    def __init__(self, folder: Path, load: Load) -> None:
        folder.mkdir()
        self.load = load
        self.etcd = Etcd(folder / "etcd")
        self.server = ApiServer(folder / "api", bookmark_s=10.0)
        self._folder = folder
        self.agent: AgentProcess

    def __enter__(self) -> "Scene":
        self.etcd.start()
        self.server.__enter__()
        self.server.put(*self.load.documents())
        self.server.compact()
        settings: dict[str, Any] = {"manifests": None, "kubeconfig": str(self.server.kubeconfig()), "leader_ttl_s": 10}
        self.agent = AgentProcess(self._folder, self.etcd.url, **settings)
        return self

    def __exit__(self, *_: object) -> None:
        self.agent.kill()
        self.server.__exit__()
        self.etcd.kill()

    def start(self) -> float:
        """Starts the agent; returns how long it took until the canaries stood, s."""
        began = time.monotonic()
        self.agent.start()
        self.settle()
        return time.monotonic() - began

    def empty_etcd(self) -> None:
        self.etcd.stop()
        self.etcd.wipe()
        self.etcd.start()

    def settle(self) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not self.agent.is_settled():
            assert time.monotonic() < deadline, self.agent.log()[-2000:]
            time.sleep(0.05)


def memory_mb(pid: int) -> tuple[float, float]:
    """Resident now, and at most so far."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {
        name: int(rest.split()[0]) / 1024 for name, _, rest in (line.partition(":") for line in lines) if "kB" in rest
    }
    return found["VmRSS"], found["VmHWM"]


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def watching(etcd: Etcd) -> Iterator[dict[str, int]]:
    """Address → when a watch of etcd told of it, monotonic ns."""
    seen: dict[str, int] = {}
    argv = [sys.executable, "-m", "bench.etcd_watch", etcd.address, IPS]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    lines = process.stdout
    assert lines.readline() == "ready\n"

    def follow() -> None:
        for line in lines:
            at, key = line.split()
            seen.setdefault(key.removeprefix(IPS), int(at))

    reader = Thread(target=follow)
    reader.start()
    try:
        yield seen
    finally:
        process.kill()
        process.wait()
        reader.join()
        lines.close()


def change_pods(scene: Scene, seconds: int, *, round: int) -> dict[str, float]:
    """RATE pods a second get another address. Lags in ms, CPU in ms per change."""
    sent: dict[str, int] = {}
    with watching(scene.etcd) as seen:
        before, began = cpu_s(scene.agent.pid), time.monotonic()
        for n in range(RATE * seconds):
            pod = (n * 97) % scene.load.pods
            this = round + n // scene.load.pods
            time.sleep(max(0.0, began + n / RATE - time.monotonic()))
            sent[address(pod, this)] = time.monotonic_ns()
            scene.server.put(scene.load.pod(pod, round=this))
        took = time.monotonic() - began
        deadline = time.monotonic() + DEADLINE_S
        while sent.keys() - seen.keys() and time.monotonic() < deadline:
            time.sleep(0.05)
        scene.settle()
        spent = cpu_s(scene.agent.pid) - before
    assert not sent.keys() - seen.keys(), "changes were lost"
    lags = [(seen[ip] - at) / 1e6 for ip, at in sent.items()]
    return {
        "rate": len(sent) / took,
        "p50": percentile(lags, 50),
        "p99": percentile(lags, 99),
        "cpu": 1000 * spent / len(sent),
        "share": 100 * spent / took,
    }


async def list_records(etcd: Etcd) -> dict[str, bytes]:
    """What the agent has published, with its numbering."""
    connection = EtcdConnection(Endpoint(etcd.address))
    try:
        return {
            entry.key.decode(): entry.value
            for prefix in ("cilium/state/", keys.LOCAL_PREFIX)
            async for page in connection.list_keys(prefix)
            for entry in page
            if entry.key.decode() != keys.LEADER
        }
    finally:
        await connection.close()


async def bare_loop(etcd: Etcd, records: Mapping[str, bytes]) -> float:
    """Puts these into an empty etcd with the agent's transactions, and does nothing else. s."""
    revision = etcd.put(keys.LEADER, "bench")
    connection = EtcdConnection(Endpoint(etcd.address))
    try:
        fence = Fence(connection, revision, Lookout(lambda: None))
        lease = await connection.grant_lease(900)
        limit = asyncio.Semaphore(IN_FLIGHT)

        async def write(batch: Sequence[Write]) -> None:
            async with limit:
                await fence.write(batch, lease)

        batches = split_batches([Write(key, value) for key, value in records.items()])
        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for batch in batches:
                tasks.create_task(write(batch))
        return time.perf_counter() - began
    finally:
        await connection.close()


def small(folder: Path, load: Load) -> dict[str, Any]:
    with Scene(folder, load) as scene:
        started = scene.start()
        row = change_pods(scene, SECONDS, round=1)
        return {"pods": load.pods, "start s": started, "memory MB": memory_mb(scene.agent.pid)[0], **named(row)}


def named(row: dict[str, float]) -> dict[str, float]:
    return {
        "changes/s": row["rate"],
        "lag p50 ms": row["p50"],
        "lag p99 ms": row["p99"],
        "CPU ms/change": row["cpu"],
        "CPU %": row["share"],
    }


@dataclass(frozen=True, slots=True)
class Start:
    """One start into an empty etcd, and the bare loop of what it wrote into an empty etcd, s and MB."""

    seconds: float
    spent: Mapping[str, float]
    memory: tuple[float, float]
    bare: float
    keys: int

    @property
    def ratio(self) -> float:
        return self.spent["write"] / self.bare


@dataclass(frozen=True, slots=True)
class Rest:
    """What comes after a start: changes, and a restart."""

    changes: dict[str, float]
    again: float
    memory: tuple[float, float]
    writes: int


def change_and_restart(scene: Scene) -> Rest:
    changes = change_pods(scene, FULL_SECONDS, round=1)
    scene.agent.stop()
    again = scene.start()
    return Rest(changes, again, memory_mb(scene.agent.pid), scene.agent.status()["published"]["writes"])


def start_and_bare(scene: Scene, then: Callable[[Scene], Rest] | None = None) -> tuple[Start, Rest | None]:
    seconds = scene.start()
    spent, memory = scene.agent.status()["seconds"], memory_mb(scene.agent.pid)
    rest = then(scene) if then else None
    scene.agent.stop()
    records = asyncio.run(list_records(scene.etcd))
    scene.empty_etcd()
    bare = asyncio.run(bare_loop(scene.etcd, records))
    scene.empty_etcd()
    return Start(seconds, spent, memory, bare, len(records)), rest


def full(folder: Path) -> tuple[dict[str, Any], list[str], list[Aim]]:
    with Scene(folder, FULL) as scene:
        first, rest = start_and_bare(scene, change_and_restart)
        starts = [first, *(start_and_bare(scene)[0] for _ in range(STARTS - 1))]
    assert rest
    middle = sorted(starts, key=lambda start: start.ratio)[STARTS // 2]
    now = max(start.memory[0] for start in starts)
    row = {
        "pods": FULL.pods,
        "start s": median(start.seconds for start in starts),
        "memory MB": now,
        **named(rest.changes),
    }
    lines = [
        "start: "
        + ", ".join(f"{name} {value:.1f} s" for name, value in middle.spent.items())
        + f"; bare loop of the same transactions: {middle.bare:.1f} s for {middle.keys} keys",
        "write part against the bare loop, each start: " + ", ".join(f"{start.ratio:.2f}" for start in starts),
        f"memory at most {max(start.memory[1] for start in starts):.0f} MB",
        f"restart: {rest.again:.1f} s, {rest.writes} writes; memory {rest.memory[0]:.0f} MB, "
        f"at most {rest.memory[1]:.0f} MB",
    ]
    aims = [
        Aim("write part against the bare loop", "≤ 2", middle.ratio, middle.ratio <= 2),
        Aim("memory after the start, MB", f"≤ {MAX_RSS_MB}", now, now <= MAX_RSS_MB),
        Aim("memory after a restart, MB", f"≤ {MAX_RSS_MB}", rest.memory[0], rest.memory[0] <= MAX_RSS_MB),
        Aim("writes of a restart", "0", float(rest.writes), rest.writes == 0),
    ]
    return row, lines, aims


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        rows = [small(Path(place, str(load.pods)), load) for load in LOADS]
        row, lines, aims = full(Path(place, "full"))
    rows.append(row)
    ratio = rows[-1]["CPU ms/change"] / rows[0]["CPU ms/change"]
    aims.append(Aim("CPU of a change at 100 000 pods against 1 000", "≤ 1.5", ratio, ratio <= 1.5))
    report("agent", rows, aims)
    for line in lines:
        print(f"  {line}")


if __name__ == "__main__":
    main()
