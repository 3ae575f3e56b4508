"""What others saw of the demo: nft counters, servers' logs, etcd, bpftool. Each writes what it read into a folder."""

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

from meshd.socket import SocketError, get
from meshd.testbed import kindnet, kubeproxy, netns
from meshd.testbed.layout import BPFFS
from meshd.testbed.parts import ETCD_PORT, socket_path
from meshd.testbed.testbed import Testbed
from wire import keys

Counts = dict[str, int]


def count_nft(bed: Testbed) -> Counts:
    """Packets by `cluster-node table counter`, for kindnet's MASQUERADE and kube-proxy's rules on all nodes."""
    counts: Counts = {}
    for cluster in bed.clusters:
        for node in cluster.nodes:
            text = netns.output(["nft", "-j", "list", "counters"], namespace=bed.layout.node(cluster.name, node.name))
            for item in json.loads(text)["nftables"]:
                counter = item.get("counter", {})
                if counter.get("table") in (kindnet.TABLE, kubeproxy.TABLE):
                    name = f"{cluster.name}-{node.name} {counter['table']} {counter['name']}"
                    counts[name] = counter["packets"]
    return counts


def added(before: Counts, after: Counts) -> Counts:
    """What was counted in between; counters that stood still are left out."""
    return {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)}


def read_etcd(bed: Testbed, cluster: str, key: str) -> dict[str, object]:
    """A record straight from a cluster's etcd, with etcdctl. Raises KeyError if it is not there."""
    text = netns.output(
        ["etcdctl", f"--endpoints=http://127.0.0.1:{ETCD_PORT}", "get", "--print-value-only", key],
        namespace=bed.layout.control_plane(cluster),
    )
    if not text.strip():
        raise KeyError(f"{cluster}'s etcd has no {key}")
    record: dict[str, object] = json.loads(text)
    return record


def identity_of(bed: Testbed, cluster: str, address: str) -> int:
    """The identity that a cluster's etcd gives to a pod's address. Raises KeyError."""
    record = read_etcd(bed, cluster, keys.record(keys.Kind.IP, cluster, address))
    return int(str(record["ID"]))


def server_peers(bed: Testbed, skip: Counts | None = None) -> tuple[Counter[str], Counts]:
    """Peers' addresses in the rebel-base servers' logs, after the first `skip` lines of each; and the lines now."""
    peers: Counter[str] = Counter()
    lines_now: Counts = {}
    for log in sorted(bed.layout.logs.glob("*.pod.default.rebel-base-*.server.log")):
        lines = log.read_text().splitlines()
        lines_now[log.name] = len(lines)
        for line in lines[(skip or {}).get(log.name, 0) :]:
            if line.startswith("{"):
                peers[json.loads(line)["peer"]] += 1
    return peers, lines_now


def daemon_status(bed: Testbed) -> dict[str, object]:
    """What each daemon says of itself, or why it says nothing."""
    found: dict[str, object] = {}
    for cluster in bed.clusters:
        for node in cluster.nodes:
            try:
                answer = get(socket_path(bed.layout, cluster.name, node.name, "daemon"), "/v1/status")
            except SocketError as error:
                answer = str(error)
            found[f"{cluster.name}-{node.name}"] = answer
    return found


def keep_bpf(bed: Testbed, cluster: str, node: str, folder: Path) -> None:
    """bpftool's view of a node: programs on its cgroup and devices, and every pinned map's entries."""
    folder.mkdir(parents=True, exist_ok=True)
    group = bed.cgroups / f"{cluster}-{node}"
    _keep(folder / "cgroup.txt", ["bpftool", "cgroup", "show", str(group)])
    _keep(folder / "net.txt", ["bpftool", "net", "show"], namespace=bed.layout.node(cluster, node))
    pinned = BPFFS / "meshd" / bed.layout.instance(cluster, node)
    for path in sorted(path for path in pinned.rglob("*") if path.is_file()):
        if path.name.startswith("md_") and path.name != "md_known":  # two megabytes of bits
            _keep(folder / f"{path.name}.txt", ["bpftool", "map", "dump", "pinned", str(path)])


def _keep(file: Path, argv: list[str], *, namespace: str | None = None) -> None:
    """Writes what a program prints, with its command on the first line; a failure is a part of the evidence."""
    inside = netns.entering(namespace) if namespace else None
    result = subprocess.run(argv, capture_output=True, text=True, check=False, preexec_fn=inside)
    file.write_text(f"# {' '.join(argv)}\n{result.stdout}{result.stderr}")


def keep_logs(bed: Testbed, folder: Path) -> None:
    """Copies the logs of all processes and pods."""
    if bed.layout.logs.is_dir():
        shutil.copytree(bed.layout.logs, folder, dirs_exist_ok=True)
