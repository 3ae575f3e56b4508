"""`meshd status`: what the daemons on this machine say of themselves, the worst first; then agents and proxies."""

import json
import textwrap
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from meshd.asking import INSTANCE, OUTPUT, RUN_DIR, WIDTH, daemon_sockets
from meshd.console import standard_console
from meshd.controlplane import Summary, read_all
from meshd.socket import SocketError, get

EXIT_OF = {"ok": 0, "degraded": 1, "broken": 2}
STYLE = {"ok": "green", "degraded": "yellow", "broken": "red"}
PRESENCE_RANK = {"withdrawn": 0, "stale": 1, "fresh": 2}
LINK_RANK = {"rejected": 0, "disconnected": 1, "connecting": 2, "waiting": 3, "ready": 4}
HEADINGS = ("CLUSTER", "LINK", "FOR", "STATE", "EVENT", "NODES", "SVCS", "IDS", "IPS", "REFUSED", "RTT", "CERT")
VERBOSE_HEADINGS = (*HEADINGS, "LOSS", "MTU", "SERVER", "LAG", "OFFERED")
LINES_MAX = 25  # of one daemon, so that all of it fits a screen
ROWS_MAX, ROWS_MIN = 10, 3  # clusters that are shown of more, as there is room
FINDINGS_MAX = 6
NAME_MAX = 20
WAIT_S = 0.5
WIDTH_VERBOSE = 160  # columns where there is no terminal
Status = dict[str, Any]


@click.command()
@RUN_DIR
@INSTANCE
@click.option(
    "--verbose",
    is_flag=True,
    help="All clusters and findings, loss, lag, the servers' certificates.",
)
@click.option("--wait", is_flag=True, help="Until all is ok, at most --timeout seconds.")
@click.option(
    "--timeout", type=click.FloatRange(min=0), default=60.0, show_default=True, help="For --wait, in seconds."
)
@OUTPUT
@click.pass_context
def status(
    ctx: click.Context, run_dir: Path, instance: str | None, verbose: bool, wait: bool, timeout: float, output: str
) -> None:
    """Shows what the daemon hears of each cluster, how old that is, and whether the kernel holds it; then how agents
    and proxies are.

    Exit codes: 0 ok, 1 degraded, 2 broken or nobody answers.
    """
    deadline = time.monotonic() + timeout
    found, others = read_everybody(run_dir, instance)
    while wait and time.monotonic() < deadline and worst(found, others) != EXIT_OF["ok"]:
        time.sleep(WAIT_S)
        found, others = read_everybody(run_dir, instance)
    if output == "json":
        click.echo(json.dumps([*found, *(summary.as_json() for summary in others)], indent=2))
    elif not found and not others:
        click.echo(f"nobody answers in {run_dir}: is `meshd daemon` running, with this --run-dir?", err=True)
    else:
        console = standard_console(WIDTH_VERBOSE if verbose else WIDTH)
        for entry in found:
            show(entry, console, verbose=verbose)
        for summary in others:
            show_summary(summary, console)
    if wait and worst(found, others) != EXIT_OF["ok"]:
        click.echo(f"not ok within {timeout:g} s", err=True)
    ctx.exit(worst(found, others))


def worst(found: list[Status], others: list[Summary]) -> int:
    """The exit code: that of the worst of them."""
    states = [*(entry["state"] for entry in found), *(summary.state for summary in others)]
    return max((EXIT_OF[state] for state in states), default=EXIT_OF["broken"])


def read_everybody(run_dir: Path, instance: str | None) -> tuple[list[Status], list[Summary]]:
    """Daemons, then agents and proxies; of each the worst first."""
    others = sorted(read_all(run_dir, instance), key=lambda summary: -EXIT_OF[summary.state])
    sockets = daemon_sockets(run_dir, instance)
    if instance and not sockets and not others:
        sockets = [run_dir / instance / "daemon.sock"]  # asked for by name: that it is not there is what is shown
    found = [read_status(path) for path in sockets]
    found.sort(key=lambda status: -EXIT_OF[status["state"]])
    return found, others


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


def show(entry: Status, console: Console, *, verbose: bool = True) -> None:
    """One daemon for people. Unless `verbose` it takes at most LINES_MAX lines, however many clusters there are."""
    style = STYLE[entry["state"]]
    console.print(Text.assemble((entry["instance"], "bold"), ": ", (entry["state"], style)))
    clusters, findings = sorted(entry["clusters"], key=_badness), [*entry["findings"], *_warnings(entry["clusters"])]
    above = 1 + min(len(findings), FINDINGS_MAX + 1)
    summary = _wrapped(_summary(entry), console.width, None if verbose else LINES_MAX - above - ROWS_MIN - 2)
    if verbose or (len(clusters) <= ROWS_MAX and len(findings) <= FINDINGS_MAX):
        show_findings(findings, console)
    else:
        show_first_findings(findings, console)
    if clusters:
        room = LINES_MAX - above - len(summary) - 2  # the headings, and a line for the rest
        rows = len(clusters) if verbose else max(ROWS_MIN, min(ROWS_MAX, room))
        console.print(_clusters(clusters[:rows], verbose=verbose))
        if len(clusters) > rows:
            console.print(f"  {_rest(clusters[rows:])}", highlight=False)
    for line in summary:
        console.print(line, highlight=False, markup=False)


def _warnings(clusters: list[Status]) -> list[str]:
    """What is odd in a cluster's file, and harms nobody."""
    return [f"{cluster['cluster']}: {text} (a warning)" for cluster in clusters for text in cluster.get("warnings", ())]


def _wrapped(texts: Iterable[str], width: int, room: int | None) -> list[str]:
    """The texts in lines; each is cut after two, or one, where there is room for so many only."""
    wrapped = [textwrap.wrap(f"  {text}", width, subsequent_indent=" " * 4) for text in texts]
    if room is None:
        return [line for lines in wrapped for line in lines]
    most = 2 if sum(min(len(lines), 2) for lines in wrapped) <= room else 1
    return [line for lines in wrapped for line in (lines if len(lines) <= most else _cut(lines[:most], width))]


def _cut(lines: list[str], width: int) -> list[str]:
    more = " … --verbose"
    return [*lines[:-1], lines[-1][: width - len(more)] + more]


def _summary(entry: Status) -> Iterator[str]:
    """A line each of what stands below the clusters."""
    for target in entry["targets"]:
        held = ", ".join(f"{name} {count}" for name, count in target["realised"].items()) or "nothing"
        age = age_text(target["in_sync_age_s"])
        sync = f"in sync for {age}" if target["in_sync"] else f"{target['failing']} failing"
        yield f"{target['name']}: {sync}; {held}"
    if routing := entry.get("routing"):
        ways = ", ".join(f"{kind} {count}" for kind, count in routing["routes"].items()) or "no nodes"
        yield f"ways to PodCIDRs: {ways} (`meshd plan`)"
    if (maglev := entry.get("maglev")) and maglev["tables"]:
        size = f"{maglev['tables']} tables of {maglev['entries']} entries, {maglev['bytes'] / 1024:.0f} KiB"
        yield f"Maglev: {size} in the kernel"
    if without := entry.get("no_interface"):
        pods = ", ".join(pod["address"] for pod in without)
        yield f"no interface of their own, no policy: {pods}"
    if missing := [name for name, age in entry["events"].items() if age is None]:
        yield f"not yet: {', '.join(missing)}"


def show_summary(summary: Summary, console: Console) -> None:
    """An agent or a proxy for people."""
    state = summary.state, STYLE[summary.state]
    line = Text.assemble((summary.instance, "bold"), f" {summary.process}: ", state, f"; {summary.line}")
    console.print(line, soft_wrap=True)
    show_findings(summary.findings, console)


def show_findings(findings: Iterable[str], console: Console) -> None:
    """A line each, however long: they are searched for."""
    for finding in findings:
        console.print(f"  ! {' '.join(finding.split())}", highlight=False, markup=False, soft_wrap=True)


def show_first_findings(findings: list[str], console: Console) -> None:
    """A line each, cut where the screen ends."""
    for finding in findings[:FINDINGS_MAX]:
        text = f"  ! {' '.join(finding.split())}"
        console.print(
            text if len(text) <= console.width else f"{text[: console.width - 1]}…", highlight=False, markup=False
        )
    if len(findings) > FINDINGS_MAX:
        console.print(f"  ! and {len(findings) - FINDINGS_MAX} more: --verbose", highlight=False, markup=False)


def _clusters(clusters: list[Status], *, verbose: bool) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("")
    for heading in VERBOSE_HEADINGS if verbose else HEADINGS:
        most = None if verbose or heading != "CLUSTER" else NAME_MAX
        table.add_column(heading, no_wrap=True, overflow="ellipsis", max_width=most)
    for cluster in clusters:
        table.add_row("", *_row(cluster), *(_more(cluster) if verbose else ()))
    return table


def _rest(clusters: list[Status]) -> str:
    """How many more there are, by the state of their link."""
    states = Counter(f"{cluster['link']['state']}, {cluster['presence']['state']}" for cluster in clusters)
    return f"and {len(clusters)} more: " + "; ".join(f"{count} {state}" for state, count in states.most_common(3))


def _badness(cluster: Status) -> tuple[int, int, int, str]:
    presence = PRESENCE_RANK[cluster["presence"]["state"]]
    return LINK_RANK[cluster["link"]["state"]], presence, -_refused(cluster), cluster["cluster"]


def _refused(cluster: Status) -> int:
    return sum(kind["rejected"] + kind["quarantined"] + kind["over_quota"] for kind in cluster["kinds"].values())


def _row(cluster: Status) -> list[str]:
    kinds, presence = cluster["kinds"], cluster["presence"]
    days, rtt = cluster["certificate_days_left"], presence["rtt_ms"]
    lost = age_text(presence["lost_age_s"])
    return [
        f"{cluster['cluster']}{' (own)' if cluster['is_local'] else ''}",
        cluster["link"]["state"],
        age_text(cluster["link"]["age_s"]),
        f"STALE({lost})" if presence["state"] == "stale" else presence["state"],
        age_text(cluster["last_event_age_s"]),
        *(_count(kinds[kind]) for kind in ("nodes", "services", "identities", "ip")),
        str(_refused(cluster)),
        "-" if cluster["is_local"] else "unknown" if rtt is None else f"{rtt:.2f}ms",
        "unknown" if days is None else f"{days}d",
    ]


def _more(cluster: Status) -> list[str]:
    loss, server = cluster["presence"]["loss"], cluster["server_certificate"]
    shown = f"{server['days_left']}d{' wildcard' if server['by_wildcard'] else ''}" if server else "unknown"
    mtu, lag = cluster["presence"].get("path_mtu"), cluster.get("lag")
    took = f"{lag['p50_ms']:.1f}/{lag['p99_ms']:.1f}ms" if lag else "unknown"
    offered = str(sum(kind["offered"] for kind in cluster["kinds"].values()))
    way = ["unknown" if loss is None else f"{loss:.0%}", "unknown" if mtu is None else str(mtu)]
    return [*(["-", "-"] if cluster["is_local"] else way), shown, took, offered]


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
