"""From etcd to the map of another cluster's node, while 1, 100, 1 000 and 5 000 records change per second.

    cluster2: etcd ──▶ a plain watch on the same keys
                └────▶ proxy, mutual TLS ──▶ meshd daemon ──▶ md_ipcache

New addresses are written 20 times a second beside the stream of changes, and looked for. Then, what a change costs the
daemon with few entries in the ipcache and with 500 000. Beside a flood: bench/flood.py.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.map_entry import MapEntry, opened
from bench.node import NodeDaemon, enter_namespace, held
from bench.propagation import Seen
from bench.report import Aim, percentile, report
from certs.names import Kind as LeafKind
from certs.names import Leaf
from datapath.entries import ipcache_entry
from tests.support import records
from tests.support.netns import machine
from tests.support.proxied import ProxiedCluster, new_authority
from wire.codec import encode
from wire.keys import Kind, record
from wire.records import IP

RATES = (1, 100, 1_000, 5_000)
PROBES, PROBE_S = 200, 0.05
ENTRIES = 500_000
COST_RATE, COST_S = 500, 4.0
WARM_S = 1.5
DEADLINE_S = 20.0
POLL_S = 0.0002
PUTS = 120
QUOTAS = "{quotas: {ip: {records: 600000, bytes: 268435456}}}"
ROOT = Path(__file__).parents[1]
PROBED = "20.200."  # addresses that are looked for


@dataclass
class Scene:
    """Two remote clusters, a daemon, and the plain watch."""

    daemon: NodeDaemon
    clusters: dict[int, ProxiedCluster]
    plain: Seen
    numbers: Iterator[int]
    file3: Path
    """The daemon's file of cluster3."""

    @contextmanager
    def changing(self, cluster_id: int, rate: float) -> Iterator["subprocess.Popen[str]"]:
        """That many changes per second; its output says how many there were."""
        command = [sys.executable, "-m", "bench.etcd_writer", self.clusters[cluster_id].etcd.address]
        command += [str(cluster_id), str(rate)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as writer:
            try:
                yield writer
            finally:
                writer.kill()

    def probes(self, count: int, every_s: float) -> list[tuple[float, float]]:
        """What `probe` gives for each."""
        found = []
        with opened(self.daemon.map("md_ipcache")) as fd:
            for _ in range(count):
                start = time.monotonic()
                found.append(self.probe(fd))
                time.sleep(max(0.0, every_s - (time.monotonic() - start)))
        return found

    def probe(self, fd: int) -> tuple[float, float]:
        """Milliseconds from etcd's answer to a write until the plain watch has it, and until the map has it."""
        number = next(self.numbers)
        address = IPv4Address(f"{PROBED}0.0") + number
        key = record(Kind.IP, "cluster2", str(address))
        entry = MapEntry(fd, ipcache_entry(address, identity=0, tunnel=None, remote=True).key)
        value = encode(IP(ip=str(address), host_ip="172.18.2.11", id=(2 << 16) + 256))
        self.clusters[2].etcd.put(key, value)
        start = time.monotonic_ns()
        end = time.monotonic() + DEADLINE_S
        in_map = 0
        while not in_map or key not in self.plain.at:
            if not in_map and entry.stands():
                in_map = time.monotonic_ns()
            if time.monotonic() > end:
                raise TimeoutError(f"{address} did not come within {DEADLINE_S:.0f} s")
            time.sleep(POLL_S)
        return (self.plain.at[key] - start) / 1e6, (in_map - start) / 1e6


@contextmanager
def plain_watch(etcd: str, prefix: str) -> Iterator[Seen]:
    command = [sys.executable, "-m", "bench.etcd_watch", etcd, prefix]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        seen = Seen()
        seen.follow_in_thread(process)
        if not seen.ready.wait(DEADLINE_S):
            raise TimeoutError("the plain watch did not start")
        try:
            yield seen
        finally:
            process.kill()


def series(scene: Scene, what: str) -> dict[str, object]:
    """PROBES probes while something else goes on."""
    time.sleep(WARM_S)
    cpu, began = scene.daemon.cpu_s(), time.monotonic()
    found = scene.probes(PROBES, PROBE_S)
    plain, behind = [at_watch for at_watch, _ in found], [in_map - at_watch for at_watch, in_map in found]
    used = (scene.daemon.cpu_s() - cpu) / (time.monotonic() - began)
    row: dict[str, object] = {
        "what": what,
        "plain p50 ms": percentile(plain, 50),
        "plain p99 ms": percentile(plain, 99),
        "map behind it p50 ms": percentile(behind, 50),
        "p99 ms": percentile(behind, 99),
        "daemon CPU %": 100 * used,
    }
    print(f"  {row}", file=sys.stderr, flush=True)
    return row


def cost_us(scene: Scene) -> float:
    """CPU time of the daemon for one change, idle time taken off."""
    idle, start = scene.daemon.cpu_s(), time.monotonic()
    time.sleep(COST_S)
    idle = (scene.daemon.cpu_s() - idle) / (time.monotonic() - start)
    with scene.changing(2, COST_RATE) as writer:
        assert writer.stdout
        writer.stdout.readline()
        time.sleep(WARM_S)
        cpu, start = scene.daemon.cpu_s(), time.monotonic()
        time.sleep(COST_S)
        took = time.monotonic() - start
        return (scene.daemon.cpu_s() - cpu - idle * took) / (COST_RATE * took) * 1e6


def grow(scene: Scene) -> None:
    """Cluster3 says ENTRIES addresses."""
    for start in range(0, ENTRIES, PUTS):
        found: records.Records = {}
        for number in range(start, min(start + PUTS, ENTRIES)):
            found |= records.ip("cluster3", str(IPv4Address("60.0.0.0") + number), "172.18.3.11", (3 << 16) + 256)
        scene.clusters[3].etcd.put_all(found)
    scene.daemon.wait_for(lambda status: held(status, "md_ipcache") >= ENTRIES, f"{ENTRIES} entries")


def measure(scene: Scene) -> tuple[list[dict[str, object]], list[Aim]]:
    rows = []
    for rate in RATES:
        with scene.changing(2, rate):
            rows.append(series(scene, f"{rate} changes/s"))
    few = cost_us(scene)
    grow(scene)
    many = cost_us(scene)
    print(f"  one change: {few:.0f} µs with few entries, {many:.0f} µs with {ENTRIES}", file=sys.stderr, flush=True)
    p50, p99 = (float(str(rows[2][name])) for name in ("map behind it p50 ms", "p99 ms"))
    aims = [
        Aim("map behind the plain watch at 1 000 changes/s, p50", "≤ 5 ms", p50, p50 <= 5),
        Aim("the same, p99", "≤ 25 ms", p99, p99 <= 25),
        Aim(f"CPU of a change with {ENTRIES} entries to one with few", "about 1", many / few, many <= 1.3 * few),
    ]
    return rows, aims


@contextmanager
def new_scene() -> Iterator[Scene]:
    """In a network namespace of this process."""
    enter_namespace()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="meshd-bench-")))
        made = stack.enter_context(machine())
        authority = new_authority(folder / "ca")
        clusters = {}
        (folder / "mesh").mkdir()
        for number in (1, 2, 3):
            name = f"cluster{number}"
            clusters[number] = ProxiedCluster(folder, name, authority, folder / f"certs{number}")
            stack.callback(clusters[number].stop)
            clusters[number].etcd.options += ["--quota-backend-bytes=4000000000", "--unsafe-no-fsync"]
            clusters[number].start()
            node = records.node(name, number, "n1", f"172.18.{number}.11", f"{number}0.0.0.0/24")
            clusters[number].etcd.put_all(records.cluster(name, number) | node)
            leaf = Leaf(LeafKind.DAEMON if number == 1 else LeafKind.REMOTE, "cluster1")
            path = folder / "local.yaml" if number == 1 else folder / "mesh" / name
            path.write_text(clusters[number].remote_file(leaf, **({} if number == 1 else {"meshd": QUOTAS})))
        daemon = NodeDaemon.start(made, folder, map_sizes={"md_ipcache": 1_000_000})
        plain = stack.enter_context(plain_watch(clusters[2].etcd.address, record(Kind.IP, "cluster2", PROBED)))
        yield Scene(daemon, clusters, plain, count(1), folder / "mesh" / "cluster3")


def main() -> None:
    print("bench changes: etcd to map under load; about a minute and a half", file=sys.stderr, flush=True)
    with new_scene() as scene:
        report("changes", *measure(scene))


if __name__ == "__main__":
    main()
