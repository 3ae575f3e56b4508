"""`meshd plan --clustermesh`: asks every cluster of the folder once, and says what would not work between them."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import click
from rich.table import Table

from meshd.compatibility import findings
from meshd.config import ConfigError
from meshd.console import standard_console
from meshd.daemon.clustermesh import scan_folder
from meshd.daemon.firstlook import Heard, look
from meshd.daemon.remotefile import BadRemoteFile, RemoteFile, parse_remote_file
from meshd.status import EXIT_OF
from routing.lookup import Lookup
from routing.plan import Hop
from routing.tunnel import BadTunnel, tunnel_of
from wire.keys import Kind
from wire.records import IPAddress, Node

WIDTH = 140


def show_prospect(clustermesh: Path, local: Path, cluster: str, peers: Sequence[str], output: str) -> int:
    """The exit code. Raises ConfigError if the folder or the file cannot be read."""
    scan = scan_folder(clustermesh, own=cluster)
    if "" in scan.problems:
        raise ConfigError(f"--clustermesh: {scan.problems['']}")
    chosen = [file for name, file in sorted(scan.files.items()) if not peers or name in peers]
    clusters = asyncio.run(_look_at([_own(local, cluster), *chosen]))
    found = [f"clustermesh file {name}: {reason}" for name, reason in scan.problems.items()] + findings(clusters)
    hops = _hops(clusters)
    if output == "json":
        click.echo(json.dumps({"findings": found, "clusters": [_row(heard, hops) for heard in clusters]}, indent=2))
    else:
        _show(clusters, hops, found)
    if not any(heard.config for heard in clusters):
        return EXIT_OF["broken"]
    return EXIT_OF["degraded" if found else "ok"]


def _own(local: Path, cluster: str) -> RemoteFile:
    try:
        return parse_remote_file(cluster, local.read_text(), folder=local.parent)
    except OSError as error:
        raise ConfigError(f"--local {local}: cannot be read ({error.strerror})") from error
    except BadRemoteFile as error:
        raise ConfigError(f"--local {local}: {error}") from error


async def _look_at(files: Sequence[RemoteFile]) -> list[Heard]:
    return await asyncio.gather(*map(look, files))


def _hops(clusters: Sequence[Heard]) -> dict[IPAddress, Hop | None]:
    """The way to each node, as this machine's kernel has it now."""
    nodes = [node for heard in clusters[1:] for node in heard.nodes]
    addresses = {address for node in nodes for version in (4, 6) if (address := node.node_ip(version))}
    with Lookup() as lookup:
        return lookup.hops(sorted(addresses, key=str))


def _row(heard: Heard, hops: dict[IPAddress, Hop | None]) -> dict[str, object]:
    """A cluster, with how many of its nodes are on-link, behind a gateway, or not reached from here."""
    ways = [hops.get(address) for node in heard.nodes if (address := node.node_ip(4) or node.node_ip(6)) in hops]
    return {
        "cluster": heard.cluster,
        "id": heard.config.id if heard.config else None,
        "nodes": len(heard.nodes),
        "pod_cidrs": sum(len(node.pod_cidrs()) for node in heard.nodes),
        "services": heard.counts.get(Kind.SERVICE),
        "ips": heard.counts.get(Kind.IP),
        "tunnels": sorted({_tunnel(node) for node in heard.nodes}),
        "on_link": sum(hop is not None and hop.gateway is None for hop in ways),
        "behind_a_gateway": sum(hop is not None and hop.gateway is not None for hop in ways),
        "no_route": sum(hop is None for hop in ways),
        "mtu": min((hop.mtu for hop in ways if hop is not None), default=None),
        "heartbeat": None if heard.heartbeat_age_s is None else f"{heard.heartbeat_age_s:.0f}s",
        "etcd": heard.etcd or None,
        "cert": None if heard.certificate is None else f"{heard.certificate.days_left()}d",
    }


def _tunnel(node: Node) -> str:
    try:
        return str(tunnel_of(node))
    except BadTunnel:
        return "none that can be read"


def _show(clusters: Sequence[Heard], hops: dict[IPAddress, Hop | None], found: Sequence[str]) -> None:
    console = standard_console(WIDTH)
    for finding in found:
        console.print(f"  ! {finding}", highlight=False, markup=False, soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0))
    rows = [_row(heard, hops) for heard in clusters]
    for heading in rows[0]:
        table.add_column(heading.upper().replace("_", " "))
    for row in rows:
        table.add_row(*(", ".join(v) if isinstance(v, list) else "-" if v is None else str(v) for v in row.values()))
    console.print(table)
    console.print("  on-link nodes go direct in mode hybrid; those behind a gateway by tunnel", highlight=False)
