"""`meshd plan`: how this machine's daemons reach the nodes of all clusters, and why so."""

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from meshd.asking import INSTANCE, OUTPUT, RUN_DIR, daemon_sockets
from meshd.console import standard_console
from meshd.socket import SocketError, get

EXIT_OK, EXIT_DEGRADED, EXIT_BROKEN = 0, 1, 2
WIDTH = 140  # columns where there is no terminal
KIND_RANK = {"unreachable": 0, "direct": 1, "tunnel": 2, "same-cluster": 3, "local": 4}
Plan = dict[str, Any]


@click.command()
@click.argument("peers", nargs=-1)
@RUN_DIR
@INSTANCE
@click.option("--clustermesh", type=click.Path(path_type=Path), help="Before connecting: the folder of remotes.")
@click.option("--local", type=click.Path(path_type=Path), help="With --clustermesh: the file that names our own proxy.")
@click.option("--cluster", help="With --clustermesh: name of this cluster.")
@OUTPUT
@click.pass_context
def plan(
    ctx: click.Context,
    peers: tuple[str, ...],
    run_dir: Path,
    instance: str | None,
    clustermesh: Path | None,
    local: Path | None,
    cluster: str | None,
    output: str,
) -> None:
    """Shows the way to each PodCIDR (of PEERS, or of all clusters) with its reason, and the conflicts.

    With --clustermesh it asks no daemon but every cluster of the folder: what would not work if they were connected.

    Exit codes: 0 all are reached, 1 some are not (or not known) or there are conflicts, 2 no daemon or cluster answers.
    """
    if clustermesh is not None:
        if local is None or cluster is None:
            raise click.UsageError("--clustermesh needs --local and --cluster: who are we?")
        from meshd.prospect import show_prospect  # gRPC, which the plan of a daemon does without

        ctx.exit(show_prospect(clustermesh, local, cluster, peers, output))
    found = []
    for path in daemon_sockets(run_dir, instance):
        try:
            found.append(only(get(path, "/v1/plan"), peers))
        except SocketError as error:
            click.echo(f"{path.parent.name}: {error}", err=True)
            ctx.exit(EXIT_BROKEN)
    if not found:
        click.echo(f"no daemon in {run_dir}: is `meshd daemon` running, with this --run-dir?", err=True)
        ctx.exit(EXIT_BROKEN)
    unknown = sorted(set(peers) - {route["cluster"] for entry in found for route in entry["routes"]})
    if output == "json":
        click.echo(json.dumps(found, indent=2))
    else:
        console = standard_console(WIDTH)
        for entry in found:
            show(entry, console, ", ".join(peers))
    for peer in unknown:
        click.echo(f"{peer}: no daemon here has heard of a node of such a cluster", err=True)
    ctx.exit(EXIT_DEGRADED if unknown or any(is_degraded(entry) for entry in found) else EXIT_OK)


def only(entry: Plan, peers: tuple[str, ...]) -> Plan:
    """The plan with the routes of these clusters; all without any."""
    routes = [route for route in entry["routes"] if not peers or route["cluster"] in peers]
    return {**entry, "routes": routes}


def is_degraded(entry: Plan) -> bool:
    """Something is not reached, or claimed twice."""
    unreachable = any(route["kind"] == "unreachable" for route in entry["routes"])
    return bool(unreachable or entry["conflicts"] or entry["problems"])


def show(entry: Plan, console: Console, of: str = "") -> None:
    """One daemon for people; `of` are the clusters that were asked for."""
    peers = "".join(f", {cluster} {mode}" for cluster, mode in sorted(entry["peers"].items()))
    console.print(Text.assemble((entry["instance"], "bold"), f": mode {entry['mode']}{peers}"))
    for what, problem in entry["problems"].items():
        console.print(f"  ! {what}: {problem}", highlight=False, markup=False)
    for conflict in entry["conflicts"]:
        console.print(f"  ! {conflict['text']}", highlight=False, markup=False)
    if not entry["routes"]:
        console.print("  no PodCIDR of another node is known here" if not of else f"  nothing known of {of}")
        return
    table = Table(box=None, padding=(0, 0, 0, 2))
    for heading in ("PREFIX", "NODE", "WAY", "DEVICE", "VIA", "BECAUSE"):
        table.add_column(heading, no_wrap=heading != "BECAUSE")
    for route in sorted(entry["routes"], key=lambda route: (KIND_RANK[route["kind"]], route["cluster"])):
        table.add_row(
            route["prefix"],
            f"{route['cluster']}/{route['node']}",
            route["kind"],
            route["device"] or "-",
            route["via"] or "-",
            route["reason"],
        )
    console.print(table)
