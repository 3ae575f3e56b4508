"""The real processes: each cluster's etcd, agent and proxy, each node's daemon; their flags and readiness."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from certs.names import Kind, Leaf
from meshd.socket import SocketError, get
from meshd.testbed import process
from meshd.testbed.layout import BPFFS, Layout
from meshd.testbed.plan import Cluster, Node
from meshd.testbed.process import Place, Record
from meshd.testbed.trust import PROXY_PORT, leaf_folder
from meshd.testbed.underlay import DEVICE

ETCD_PORT = 12379
"""On the control plane's loopback: only the agent and the proxy reach it, as in a real cluster."""
_ETCD_PEER_PORT = 12380
_MESHD = (sys.executable, "-P", "-m", "meshd")


@dataclass(frozen=True, slots=True)
class Part:
    """One process: `name` is what people call it, `cluster1/proxy` or `cluster1/daemon-node1`."""

    name: str
    rank: int
    """Parts of a lower rank are started, and ready, before."""
    place: Place
    argv: tuple[str, ...]
    is_ready: Callable[[Record], bool]

    @property
    def record_name(self) -> str:
        return self.name.replace("/", ".")


def parts(layout: Layout, clusters: Sequence[Cluster], cgroups: Path, daemon_flags: Sequence[str] = ()) -> list[Part]:
    """All of them, in the order of their start. `daemon_flags` are given to every daemon besides its own."""
    found = []
    for cluster in clusters:
        place = Place(layout.control_plane(cluster.name), cgroups / f"{cluster.name}-control-plane")
        found += [_etcd(layout, cluster, place), _agent(layout, cluster, place), _proxy(layout, cluster, place)]
        found += [_daemon(layout, cluster, node, cgroups, daemon_flags) for node in cluster.nodes]
    return sorted(found, key=lambda part: part.rank)


def socket_path(layout: Layout, cluster: str, role: str, kind: str) -> Path:
    """The local API of a process; `role` is `control-plane` or a node's name."""
    return layout.run / layout.instance(cluster, role) / f"{kind}.sock"


def _etcd(layout: Layout, cluster: Cluster, place: Place) -> Part:
    url, peer = f"http://127.0.0.1:{ETCD_PORT}", f"http://127.0.0.1:{_ETCD_PEER_PORT}"
    argv = (
        "etcd",
        f"--name={cluster.name}",
        f"--data-dir={layout.etcd(cluster.name)}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster={cluster.name}={peer}",
        "--log-level=warn",
        "--logger=zap",
    )
    return Part(f"{cluster.name}/etcd", 0, place, argv, lambda record: process.listens(record.pid, ETCD_PORT))


def _agent(layout: Layout, cluster: Cluster, place: Place) -> Part:
    argv = (
        *_MESHD,
        "agent",
        f"--cluster={cluster.name}",
        f"--cluster-id={cluster.cluster_id}",
        f"--etcd=http://127.0.0.1:{ETCD_PORT}",
        f"--manifests={layout.objects(cluster.name)}",
        *_instance(layout, cluster, "control-plane"),
    )
    socket = socket_path(layout, cluster.name, "control-plane", "agent")
    return Part(f"{cluster.name}/agent", 1, place, argv, lambda _: answers(socket))


def _proxy(layout: Layout, cluster: Cluster, place: Place) -> Part:
    folder = leaf_folder(layout, Leaf(Kind.SERVER, cluster.name))
    argv = (
        *_MESHD,
        "proxy",
        f"--cluster={cluster.name}",
        f"--listen={cluster.control_plane}:{PROXY_PORT}",
        f"--etcd=http://127.0.0.1:{ETCD_PORT}",
        f"--cert={folder / 'tls.crt'}",
        f"--key={folder / 'tls.key'}",
        f"--ca={folder / 'ca.crt'}",
        *_instance(layout, cluster, "control-plane"),
    )
    return Part(f"{cluster.name}/proxy", 1, place, argv, lambda record: process.listens(record.pid, PROXY_PORT))


def _daemon(layout: Layout, cluster: Cluster, node: Node, cgroups: Path, flags: Sequence[str]) -> Part:
    cgroup = cgroups / f"{cluster.name}-{node.name}"
    argv = (
        *_MESHD,
        "daemon",
        f"--cluster={cluster.name}",
        f"--cluster-id={cluster.cluster_id}",
        f"--node={node.name}",
        f"--local={layout.local(cluster.name, node.name)}",
        f"--clustermesh={layout.clustermesh(cluster.name, node.name)}",
        f"--bpffs={BPFFS}",
        f"--cgroup={cgroup}",
        f"--device={DEVICE}",
        "--policy=enforce",
        *flags,
        *_instance(layout, cluster, node.name),
    )
    socket = socket_path(layout, cluster.name, node.name, "daemon")
    place = Place(layout.node(cluster.name, node.name), cgroup)
    return Part(f"{cluster.name}/daemon-{node.name}", 2, place, argv, lambda _: answers(socket))


def _instance(layout: Layout, cluster: Cluster, role: str) -> tuple[str, str]:
    return f"--run-dir={layout.run}", f"--instance={layout.instance(cluster.name, role)}"


def answers(socket: Path) -> bool:
    """Does the process behind a local API answer?"""
    try:
        get(socket, "/v1/status")
    except SocketError:
        return False
    return True
