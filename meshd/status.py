"""`meshd status`: what the daemons on this machine say of themselves, the worst first; then agents and proxies."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from meshd.controlplane import Summary, read_all
from meshd.socket import SocketError, get

EXIT_OF = {"ok": 0, "degraded": 1, "broken": 2}
STYLE = {"ok": "green", "degraded": "yellow", "broken": "red"}
LINK_RANK = {"rejected": 0, "disconnected": 1, "connecting": 2, "waiting": 3, "ready": 4}
HEADINGS = ("CLUSTER", "LINK", "FOR", "LAST EVENT", "NODES", "SERVICES", "IDENTITIES", "IPS", "REJECTED", "CERT")
WIDTH = 100  # columns where there is no terminal
Status = dict[str, Any]


@click.command()
@click.option("--run-dir", type=click.Path(path_type=Path), default=Path("/run/meshd"), show_default=True)
@click.option("--instance", help="Only this one.  [default: every daemon of the run directory]")
@click.option("-o", "output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.pass_context
def status(ctx: click.Context, run_dir: Path, instance: str | None, output: str) -> None:
    """Shows what the daemon hears of each cluster, how old that is, and whether the kernel holds it; then how agents
    and proxies are.

    Exit codes: 0 ok, 1 degraded, 2 broken or nobody answers.
    """
    others = sorted(read_all(run_dir, instance), key=lambda summary: -EXIT_OF[summary.state])
    sockets = daemon_sockets(run_dir, instance)
    if instance and not sockets and not others:
        sockets = [run_dir / instance / "daemon.sock"]  # asked for by name: that it is not there is what is shown
    found = [read_status(path) for path in sockets]
    found.sort(key=lambda status: -EXIT_OF[status["state"]])
    if output == "json":
        click.echo(json.dumps([*found, *(summary.as_json() for summary in others)], indent=2))
    elif not found and not others:
        click.echo(f"nobody answers in {run_dir}: is `meshd daemon` running, with this --run-dir?", err=True)
    else:
        console = Console(width=None if sys.stdout.isatty() else WIDTH)
        for entry in found:
            show(entry, console)
        for summary in others:
            show_summary(summary, console)
    states = [*(entry["state"] for entry in found), *(summary.state for summary in others)]
    ctx.exit(max((EXIT_OF[state] for state in states), default=EXIT_OF["broken"]))


def daemon_sockets(run_dir: Path, instance: str | None) -> list[Path]:
    """The sockets to ask."""
    return sorted(run_dir.glob(f"{instance or '*'}/daemon.sock"))


def read_status(path: Path) -> Status:
    """A daemon that does not answer is broken, and says so."""
    try:
        answer: Status = get(path, "/v1/status")
    except SocketError as error:
        return {
            "instance": path.parent.name,
            "state": "broken",
            "findings": [str(error)],
            "clusters": [],
            "targets": [],
            "events": {},
        }
    return answer


def show(entry: Status, console: Console) -> None:
    """One daemon for people."""
    style = STYLE[entry["state"]]
    missing = [name for name, age in entry["events"].items() if age is None]
    console.print(f"[bold]{entry['instance']}[/]: [{style}]{entry['state']}[/]", highlight=False)
    show_findings(entry["findings"], console)
    if entry["clusters"]:
        console.print(_clusters(entry["clusters"]))
    for target in entry["targets"]:
        held = ", ".join(f"{name} {count}" for name, count in target["realised"].items()) or "nothing"
        age = age_text(target["in_sync_age_s"])
        sync = f"in sync for {age}" if target["in_sync"] else f"{target['failing']} failing"
        console.print(f"  {target['name']}: {sync}; {held}", highlight=False)
    if routing := entry.get("routing"):
        ways = ", ".join(f"{kind} {count}" for kind, count in routing["routes"].items()) or "no nodes"
        console.print(f"  ways to PodCIDRs: {ways} (`meshd plan`)", highlight=False)
    if missing:
        console.print(f"  not yet: {', '.join(missing)}", highlight=False)


def show_summary(summary: Summary, console: Console) -> None:
    """An agent or a proxy for people."""
    state = f"[{STYLE[summary.state]}]{summary.state}[/]"
    console.print(
        f"[bold]{summary.instance}[/] {summary.process}: {state}; {summary.line}", highlight=False, soft_wrap=True
    )
    show_findings(summary.findings, console)


def show_findings(findings: Iterable[str], console: Console) -> None:
    """A line each, however long: they are searched for."""
    for finding in findings:
        console.print(f"  ! {' '.join(finding.split())}", highlight=False, markup=False, soft_wrap=True)


def _clusters(clusters: list[Status]) -> Table:
    table = Table(box=None, padding=(0, 0, 0, 2))
    for heading in HEADINGS:
        table.add_column(heading, no_wrap=True)
    for cluster in sorted(clusters, key=_badness):
        table.add_row(*_row(cluster))
    return table


def _badness(cluster: Status) -> tuple[int, int, str]:
    rejected = sum(kind["rejected"] for kind in cluster["kinds"].values())
    return LINK_RANK[cluster["link"]["state"]], -rejected, cluster["cluster"]


def _row(cluster: Status) -> list[str]:
    kinds = cluster["kinds"]
    rejected = sum(kind["rejected"] for kind in kinds.values())
    days = cluster["certificate_days_left"]
    return [
        f"{cluster['cluster']}{' (own)' if cluster['is_local'] else ''}",
        cluster["link"]["state"],
        age_text(cluster["link"]["age_s"]),
        age_text(cluster["last_event_age_s"]),
        *(_count(kinds[kind]) for kind in ("nodes", "services", "identities", "ip")),
        str(rejected),
        "unknown" if days is None else f"{days}d",
    ]


def _count(kind: Status) -> str:
    """`~` until the kind has synced: what is there may not be all."""
    return f"{'' if kind['synced_age_s'] is not None else '~'}{kind['accepted']}"


def age_text(seconds: float | None) -> str:
    """`3s`, `5m`, `2h`, `4d`; unknown is said."""
    if seconds is None:
        return "unknown"
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
