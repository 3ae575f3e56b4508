"""One daemon and 1, 16, 64 and 255 remote clusters of 10 nodes and 1 000 ips each.

One etcd plays all the remotes, each behind a kvstoremesh so that their records have places of their own; every remote
has a connection with mutual TLS, and is watched, by itself. The lists of 255 are spread over 5 s on purpose.
"""

import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.node import NodeDaemon, enter_namespace, held
from bench.report import Aim, report
from certs.authority import Authority
from certs.leaves import issue
from certs.names import Kind as LeafKind
from certs.names import Leaf, server_name
from identity.numbering import identity_range
from tests.support import records
from tests.support.etcd import Etcd
from tests.support.netns import Machine, machine
from tests.support.ports import free_port
from tests.support.proxied import ProxiedCluster, new_authority
from wire.codec import encode
from wire.keys import HEARTBEAT, SHARED_KINDS, Kind, Layout, canary, cluster_config, record
from wire.labels import CLUSTER_LABEL, format_labels
from wire.records import CIDR, IP, Capabilities, ClusterConfig, Label, Node, NodeAddress

REMOTES = (1, 16, 64, 255)
NODES, IPS, IDENTITIES = 10, 1_000, 20
MAX_CLUSTERS = 511
WINDOW_S = 5.0
PUTS = 120  # in one transaction, etcd's limit is 128
STAMP = "2026-01-01T00:00:00Z"


def name_of(remote: int) -> str:
    return f"c{remote}"


def pod(remote: int, number: int) -> str:
    return str(IPv4Address("40.0.0.0") + remote * 4096 + number % NODES * 256 + number // NODES + 2)


def ip_value(remote: int, number: int, turn: int = 0) -> str:
    first = identity_range(remote + 1, max_clusters=MAX_CLUSTERS).start + 256
    host = str(IPv4Address("172.24.0.0") + remote * 16 + number % NODES + 1)
    return encode(IP(ip=pod(remote, number), host_ip=host, id=first + (number + turn) % IDENTITIES)).decode()


def remote_records(remote: int) -> records.Records:
    name = name_of(remote)
    capabilities = Capabilities(synced_canaries=True, cached=True, max_connected_clusters=MAX_CLUSTERS)
    config = ClusterConfig(id=remote + 1, capabilities=capabilities)
    found = {cluster_config(name): encode(config).decode()}
    found |= {canary(kind, name, Layout.CACHE): STAMP for kind in SHARED_KINDS}
    for number in range(NODES):
        node = Node(
            name=f"n{number}",
            cluster=name,
            cluster_id=remote + 1,
            addresses=[NodeAddress("InternalIP", str(IPv4Address("172.24.0.0") + remote * 16 + number + 1))],
            ipv4_cidr=CIDR(str(IPv4Address("40.0.0.0") + remote * 4096 + number * 256), "////AA=="),
        )
        found[record(Kind.NODE, name, node.name, Layout.CACHE)] = encode(node).decode()
    first = identity_range(remote + 1, max_clusters=MAX_CLUSTERS).start + 256
    for number in range(IDENTITIES):
        labels = format_labels([Label(CLUSTER_LABEL, name), Label("app", f"app-{number}")])
        found[record(Kind.IDENTITY, name, str(first + number), Layout.CACHE)] = labels
    for number in range(IPS):
        found[record(Kind.IP, name, pod(remote, number), Layout.CACHE)] = ip_value(remote, number)
    return found


class Remotes:
    """All the remotes, in one etcd with TLS."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self._folder, self.port = folder, free_port()
        names = [server_name(name_of(remote)) for remote in range(1, max(REMOTES) + 1)]
        leaf = Leaf(LeafKind.SERVER, "remotes")
        server = issue(authority, leaf, folder / "certs", now=datetime.now(UTC), names=names, addresses=["127.0.0.1"])
        self._reader = issue(authority, Leaf(LeafKind.REMOTE, "cluster1"), folder / "certs", now=datetime.now(UTC))
        self.etcd = Etcd(folder / "etcd")
        self.etcd.options += [
            f"--listen-client-urls={self.etcd.url},https://127.0.0.1:{self.port}",
            f"--cert-file={server / 'tls.crt'}",
            f"--key-file={server / 'tls.key'}",
            f"--trusted-ca-file={server / 'ca.crt'}",
            "--client-cert-auth",
            "--unsafe-no-fsync",
        ]

    def fill(self) -> None:
        content = {HEARTBEAT: STAMP}
        for remote in range(1, max(REMOTES) + 1):
            content |= remote_records(remote)
        items = list(content.items())
        for start in range(0, len(items), PUTS):
            self.etcd.put_all(dict(items[start : start + PUTS]))

    def file(self) -> str:
        lines = [f"endpoints: ['https://127.0.0.1:{self.port}']", f"trusted-ca-file: {self._reader / 'ca.crt'}"]
        lines += [f"cert-file: {self._reader / 'tls.crt'}", f"key-file: {self._reader / 'tls.key'}"]
        return "\n".join(lines) + "\n"

    def change(self, count: int) -> float:
        """One record of each remote every second; until when it could keep up."""
        start, seconds = time.monotonic(), int(WINDOW_S)
        for turn in range(seconds * count):
            time.sleep(max(0.0, start + turn / count - time.monotonic()))
            remote = turn % count + 1
            number = turn // count
            self.etcd.put(
                record(Kind.IP, name_of(remote), pod(remote, number), Layout.CACHE), ip_value(remote, number, 1 + turn)
            )
        return time.monotonic() - start


def measure(made: Machine, folder: Path, remotes: Remotes, count: int) -> dict[str, object]:
    daemon = NodeDaemon.start(made, folder, max_clusters=MAX_CLUSTERS)
    alone = daemon.memory_mb()
    start, cpu = time.monotonic(), daemon.cpu_s()
    for remote in range(1, count + 1):
        (folder / "mesh" / name_of(remote)).write_text(remotes.file())
    daemon.wait_for(
        lambda status: (
            held(status, "md_ipcache") >= count * IPS
            and [cluster["link"]["state"] for cluster in status["clusters"]].count("ready") == count + 1
        ),
        f"{count} remotes",
    )
    ready_s, ready_cpu_s = time.monotonic() - start, daemon.cpu_s() - cpu
    cpu = daemon.cpu_s()
    time.sleep(WINDOW_S)
    idle = (daemon.cpu_s() - cpu) / WINDOW_S
    cpu = daemon.cpu_s()
    took = remotes.change(count)
    busy = (daemon.cpu_s() - cpu) / took
    row: dict[str, object] = {
        "remotes": count,
        "all ready s": ready_s,
        "CPU until then s": ready_cpu_s,
        "RSS MB": round(daemon.memory_mb()),
        "without remotes MB": round(alone),
        "idle CPU %": 100 * idle,
        "CPU % at 1 change/s each": 100 * busy,
    }
    return row


def main() -> None:
    print("bench mesh255: 1, 16, 64 and 255 remotes; about two minutes", file=sys.stderr, flush=True)
    enter_namespace()
    rows = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="meshd-bench-")))
        authority = new_authority(folder / "ca")
        one = ProxiedCluster(folder, "cluster1", authority, folder / "certs1")
        stack.callback(one.stop)
        one.start()
        said = records.cluster("cluster1", 1, max_clusters=MAX_CLUSTERS)
        one.etcd.put_all(said | records.node("cluster1", 1, "n1", "172.18.1.11", "10.0.0.0/24"))
        (folder / "local.yaml").write_text(one.remote_file(Leaf(LeafKind.DAEMON, "cluster1")))
        remotes = Remotes(folder, authority)
        stack.callback(remotes.etcd.kill)
        remotes.etcd.start()
        remotes.fill()
        for count in REMOTES:
            inner = folder / str(count)
            (inner / "mesh").mkdir(parents=True)
            (inner / "local.yaml").symlink_to(folder / "local.yaml")
            with machine() as made:
                rows.append(measure(made, inner, remotes, count))
            print(f"  {rows[-1]}", file=sys.stderr, flush=True)
    spread = float(str(rows[-1]["all ready s"]))
    report("mesh255", rows, [Aim("255 remotes ready, s (lists spread over at least 5)", "≥ 5", spread, spread >= 5)])


if __name__ == "__main__":
    main()
