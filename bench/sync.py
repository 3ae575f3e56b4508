"""How long a daemon takes to have a large cluster in its node's maps, beside a bare list of the same keys.

    cluster2: etcd ──▶ proxy, mutual TLS ──▶ a bare reader: pages of 20 000, parsed as protobuf, no more
                                         ├─▶ the same, and each record decoded and kept by name: the least
                                         └─▶ meshd daemon ──▶ BPF maps

All of it in a network namespace of its own. The daemon runs and has heard its own cluster, which has the same services,
before cluster2's file is put into its folder; its time begins when its connection is made. The bare lists go before and
after it.
"""

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.etcd_peers import cpu_s
from bench.map_entry import MapEntry, opened
from bench.node import NodeDaemon, enter_namespace, held, link_of
from bench.report import Aim, report
from certs.names import Kind as LeafKind
from certs.names import Leaf, server_name
from datapath.entries import ipcache_entry, slot_entry
from datapath.slots import Slot
from tests.support import records
from tests.support.netns import Machine, machine
from tests.support.proxied import ProxiedCluster, new_authority
from wire.codec import encode
from wire.keys import SHARED_KINDS, Kind, prefix, record
from wire.labels import CLUSTER_LABEL, NAMESPACE_LABEL, format_labels
from wire.records import IP, Label

IPS, IDENTITIES, NODES, SERVICES, BACKENDS = 200_000, 20_000, 1_000, 5_000, 4
PAGE = 20_000
SAMPLE = range(0, IPS, 97)
DEADLINE_S = 120.0
POLL_S = 0.01
TIDIED_S = 4.0  # by then the daemon has given back what the lists took for a moment
PUTS = 120  # in one transaction, etcd's limit is 128
FIRST_IDENTITY = (2 << 16) + 256
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Listing:
    """Wall time, CPU of the proxy, CPU and memory of the reader."""

    s: float
    proxy_cpu_s: float
    cpu_s: float
    rss_mb: float = 0.0
    peak_mb: float = 0.0


def pod(number: int) -> str:
    return str(IPv4Address("20.0.0.0") + (number % NODES) * 256 + number // NODES + 2)


def node(number: int) -> str:
    return str(IPv4Address("172.20.0.0") + number + 1)


def remote_records() -> records.Records:
    """What cluster2 says."""
    found = records.cluster("cluster2", 2)
    for number in range(NODES):
        cidr = f"{IPv4Address('20.0.0.0') + number * 256}/24"
        found |= records.node("cluster2", 2, f"node-{number}", node(number), cidr)
    for number in range(IDENTITIES):
        namespace = Label(NAMESPACE_LABEL, f"ns-{number % 500}")
        labels = format_labels([Label(CLUSTER_LABEL, "cluster2"), namespace, Label("app", f"app-{number}")])
        found[record(Kind.IDENTITY, "cluster2", str(FIRST_IDENTITY + number))] = labels
    for number in range(IPS):
        value = IP(
            ip=pod(number),
            host_ip=node(number % NODES),
            id=FIRST_IDENTITY + number % IDENTITIES,
            namespace=f"ns-{number % 500}",
            pod_name=f"pod-{number}-7c9f8d",
            service_account="default",
        )
        found[record(Kind.IP, "cluster2", pod(number))] = encode(value).decode()
    for number in range(SERVICES):
        backends = [pod(number * BACKENDS + n) for n in range(BACKENDS)]
        found |= records.service("cluster2", 2, f"default/service-{number}", *backends)
    return found


def local_records() -> records.Records:
    """What cluster1 says to its own daemons: the same services, without backends of its own."""
    found = records.cluster("cluster1", 1) | records.node("cluster1", 1, "n1", "172.18.1.11", "10.0.0.0/24")
    for number in range(SERVICES):
        address = str(IPv4Address("30.1.0.0") + number)
        found |= records.local_service("cluster1", f"default/service-{number}", address)
    return found


def fill(cluster: ProxiedCluster, content: records.Records) -> None:
    items = list(content.items())
    for start in range(0, len(items), PUTS):
        cluster.etcd.put_all(dict(items[start : start + PUTS]))


def list_bare(cluster: ProxiedCluster, certificate: Path, *, decode: bool = False) -> Listing:
    """One after the other, each kind as a daemon lists it."""
    total, cpu, proxy = 0.0, 0.0, cpu_s(cluster.proxy_pid)
    for kind in SHARED_KINDS:
        command = [sys.executable, "-m", "bench.range_reader", prefix(kind, "cluster2"), str(PAGE)]
        command += [f"127.0.0.1:{cluster.port}", str(certificate), server_name("cluster2"), *([kind] if decode else [])]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as reader:
            assert reader.stdout
            reader.stdout.readline()
            result = json.loads(reader.communicate("go\n")[0])
        total, cpu = total + result["s"], cpu + result["cpu_s"]
    return Listing(total, cpu_s(cluster.proxy_pid) - proxy, cpu)


def is_there(status: dict[str, Any]) -> bool:
    """Everything of cluster2 is in the maps."""
    return held(status, "md_ipcache") >= IPS and held(status, "md_svc4") == SERVICES * (1 + BACKENDS)


def wait_for_entries(ips: int, services: int) -> None:
    """Until a sample of everything stands: to ask the daemon itself would take its time."""
    sample = [
        MapEntry(ips, ipcache_entry(IPv4Address(pod(n)), identity=0, tunnel=None, remote=True).key) for n in SAMPLE
    ]
    for number in range(0, SERVICES, SERVICES // 100):
        address = IPv4Address("30.1.0.0") + number
        sample.append(MapEntry(services, slot_entry(address, 80, 6, slot=BACKENDS, value=Slot(1)).key))
    end = time.monotonic() + DEADLINE_S
    while sample := [entry for entry in sample if not entry.stands()]:
        if time.monotonic() > end:
            raise TimeoutError(f"{len(sample)} entries of the sample did not come within {DEADLINE_S:.0f} s")
        time.sleep(POLL_S)


def sync(made: Machine, folder: Path, two: ProxiedCluster, file: str) -> Listing:
    daemon = NodeDaemon.start(made, folder)
    print(f"  the daemon alone: {daemon.memory_mb():.0f} MB", file=sys.stderr, flush=True)
    cpu, proxy = daemon.cpu_s(), cpu_s(two.proxy_pid)
    (folder / "mesh" / "cluster2").write_text(file)
    begun = daemon.wait_for(lambda status: link_of(status, "cluster2").get("state") == "waiting", "a connection")
    start = time.monotonic() - link_of(begun, "cluster2")["age_s"]
    with opened(daemon.map("md_ipcache")) as ips, opened(daemon.map("md_svc4")) as services:
        wait_for_entries(ips, services)
    took = time.monotonic() - start
    daemon.wait_for(is_there, "all of cluster2")
    used = daemon.cpu_s() - cpu
    time.sleep(TIDIED_S)
    return Listing(took, cpu_s(two.proxy_pid) - proxy, used, daemon.memory_mb(), daemon.memory_mb("VmHWM"))


def measure(stack: ExitStack) -> dict[str, Listing]:
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="meshd-bench-")))
    made = stack.enter_context(machine())
    authority = new_authority(folder / "ca")
    one = ProxiedCluster(folder, "cluster1", authority, folder / "certs1")
    two = ProxiedCluster(folder, "cluster2", authority, folder / "certs2")
    for cluster, content in ((one, local_records()), (two, remote_records())):
        stack.callback(cluster.stop)
        cluster.etcd.options.append("--unsafe-no-fsync")
        cluster.etcd.start()
        fill(cluster, content)
        cluster.start_proxy()
    print("  etcd is full", file=sys.stderr, flush=True)
    (folder / "mesh").mkdir()
    (folder / "local.yaml").write_text(one.remote_file(Leaf(LeafKind.DAEMON, "cluster1")))
    leaf = Leaf(LeafKind.REMOTE, "cluster1")
    file = two.remote_file(leaf)
    certificate = folder / "certs2" / leaf.folder
    list_bare(two, certificate)  # now the proxy has heard everything
    return {
        "bare list, before": list_bare(two, certificate),
        "list and decode": list_bare(two, certificate, decode=True),
        "daemon": sync(made, folder, two, file),
        "bare list, after": list_bare(two, certificate),
    }


def main() -> None:
    print(f"bench sync: {IPS} ips, {IDENTITIES} identities; about a minute", file=sys.stderr, flush=True)
    enter_namespace()
    with ExitStack() as stack:
        found = measure(stack)
    rows: list[dict[str, object]] = [
        {
            "what": name,
            "wall s": listing.s,
            "own CPU s": listing.cpu_s,
            "proxy CPU s": listing.proxy_cpu_s,
            "RSS MB": listing.rss_mb or "",
            "peak MB": listing.peak_mb or "",
        }
        for name, listing in found.items()
    ]
    daemon, bare = found["daemon"], min(found[f"bare list, {when}"].s for when in ("before", "after"))
    aims = [
        Aim("daemon's time beside the bare list's", "≤ 2", daemon.s / bare, daemon.s <= 2 * bare),
        Aim("daemon's memory, MB", "≤ 250", daemon.rss_mb, daemon.rss_mb <= 250),
    ]
    report("sync", rows, aims)


if __name__ == "__main__":
    main()
