"""Certificates of the testbed's clusters, from one CA, and the files that tell daemons of proxies."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import yaml

from certs.authority import Authority, init_ca, load_ca
from certs.leaves import issue
from certs.names import CertsError, Kind, Leaf
from meshd.testbed.layout import Layout
from meshd.testbed.plan import Cluster

PROXY_PORT = 2379
_CLIENTS = (Kind.REMOTE, Kind.LOCAL, Kind.DAEMON, Kind.ADMIN)


def ensure_certificates(layout: Layout, clusters: Sequence[Cluster]) -> None:
    """Issues what is missing; what is there stays. Raises CertsError, OSError."""
    now = datetime.now(UTC)
    authority = _authority(layout.certs, now)
    for cluster in clusters:
        directory = layout.certs / cluster.name
        server = Leaf(Kind.SERVER, cluster.name)
        if not leaf_folder(layout, server).exists():
            issue(authority, server, directory, now=now, addresses=[str(cluster.control_plane)])
        for kind in _CLIENTS:
            leaf = Leaf(kind, cluster.name)
            if not leaf_folder(layout, leaf).exists():
                issue(authority, leaf, directory, now=now)


def _authority(directory: Path, now: datetime) -> Authority:
    try:
        return load_ca(directory)
    except CertsError:
        return init_ca(directory, common_name="meshd testbed CA", now=now)


def leaf_folder(layout: Layout, leaf: Leaf) -> Path:
    """Where tls.crt, tls.key and ca.crt of a leaf are."""
    return layout.certs / leaf.cluster / leaf.folder


def write_peers(layout: Layout, clusters: Sequence[Cluster]) -> None:
    """For each node: a clustermesh file per remote cluster, and the file for its own cluster's proxy."""
    for cluster in clusters:
        for node in cluster.nodes:
            folder = layout.clustermesh(cluster.name, node.name)
            folder.mkdir(parents=True, exist_ok=True)
            for remote in clusters:
                if remote != cluster:
                    _write(folder / remote.name, _peer(layout, remote, Leaf(Kind.REMOTE, cluster.name)))
            local = layout.local(cluster.name, node.name)
            local.parent.mkdir(parents=True, exist_ok=True)
            _write(local, _peer(layout, cluster, Leaf(Kind.DAEMON, cluster.name)))


def _peer(layout: Layout, cluster: Cluster, client: Leaf) -> dict[str, object]:
    """How to reach a cluster's proxy with a client certificate, in the form that Cilium's files have."""
    folder = leaf_folder(layout, client)
    return {
        "endpoints": [f"https://{cluster.control_plane}:{PROXY_PORT}"],
        "trusted-ca-file": str(folder / "ca.crt"),
        "cert-file": str(folder / "tls.crt"),
        "key-file": str(folder / "tls.key"),
    }


def _write(path: Path, content: dict[str, object]) -> None:
    text = yaml.safe_dump(content, sort_keys=False)
    if not path.exists() or path.read_text() != text:
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text(text)
        temporary.replace(path)
