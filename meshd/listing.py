"""`meshd ipcache|node|identity list`: what daemons know, and what the kernel holds of it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.table import Table

from meshd.asking import INSTANCE, OUTPUT, RUN_DIR, ask_each
from meshd.console import standard_console
from meshd.status import EXIT_OF, WIDTH_VERBOSE

Row = dict[str, Any]
ENTRY_HEADINGS = ("ENTRY", "MAP", "REALISED")


@click.group()
def ipcache() -> None:
    """Shows addresses and prefixes with identities and tunnels."""


@click.group()
def node() -> None:
    """Shows the nodes of all clusters."""


@click.group()
def identity() -> None:
    """Shows identities with their labels."""


diff_option = click.option("--diff", is_flag=True, help="Only where the kernel does not hold what is desired.")


def show_diff(run_dir: Path, instance: str | None, output: str, what: str) -> NoReturn:
    """Prints where the kernel's maps of this differ from what is desired, and exits: 0 nowhere, 1 somewhere."""
    same = "no difference: the kernel holds what is desired"
    rows = _show(run_dir, instance, output, f"/v1/diff/{what}", ENTRY_HEADINGS, _entry_row, same)
    sys.exit(EXIT_OF["degraded" if rows else "ok"])


@ipcache.command("list")
@diff_option
@RUN_DIR
@INSTANCE
@OUTPUT
def list_ipcache(run_dir: Path, instance: str | None, output: str, *, diff: bool) -> None:
    """Lists what is desired, and what the kernel has where that differs.

    Exit codes: 0 ok, 1 something differs, 2 no daemon answers.
    """
    if diff:
        show_diff(run_dir, instance, output, "ipcache")
    rows = _show(run_dir, instance, output, "/v1/list/ipcache", ENTRY_HEADINGS, _entry_row)
    sys.exit(EXIT_OF["ok" if all(row["in_sync"] for row in rows) else "degraded"])


@node.command("list")
@diff_option
@RUN_DIR
@INSTANCE
@OUTPUT
def list_nodes(run_dir: Path, instance: str | None, output: str, *, diff: bool) -> None:
    """Lists nodes, their PodCIDRs, whether those that are probed answer, and the largest packet that gets there.

    Exit codes: 0 ok, 1 a node is refused or does not answer, or something differs, 2 no daemon answers.
    """
    if diff:
        show_diff(run_dir, instance, output, "node")
    headings = ("CLUSTER", "NODE", "ADDRESS", "PODCIDRS", "ANSWERS", "PATH MTU", "REFUSED")
    rows = _show(run_dir, instance, output, "/v1/list/node", headings, _node_row)
    sys.exit(EXIT_OF["degraded" if any(row["refused"] or row["answers"] is False for row in rows) else "ok"])


@identity.command("list")
@diff_option
@RUN_DIR
@INSTANCE
@OUTPUT
def list_identities(run_dir: Path, instance: str | None, output: str, *, diff: bool) -> None:
    """Lists identities of all clusters; what differs are the entries of policy, in which they stand.

    Exit codes: 0 ok, 1 something differs, 2 no daemon answers.
    """
    if diff:
        show_diff(run_dir, instance, output, "identity")
    _show(run_dir, instance, output, "/v1/list/identity", ("CLUSTER", "IDENTITY", "LABELS"), _identity_row)


def _show(
    run_dir: Path,
    instance: str | None,
    output: str,
    route: str,
    headings: tuple[str, ...],
    cells: Callable[[Row], tuple[str, ...]],
    nothing: str = "nothing is there",
) -> list[Row]:
    """Prints what the daemons answer, with whose it is where several do; exits if none does."""
    answers, errors = ask_each(run_dir, instance, route)
    rows: list[Row] = [{"instance": name, **row} for name, answer in answers.items() for row in _rows(answer)]
    if output == "json":
        click.echo(json.dumps(rows, indent=2))
    elif answers:
        console = standard_console(WIDTH_VERBOSE)
        table = Table(box=None, padding=(0, 2, 0, 0))
        for heading in ("INSTANCE", *headings) if len(answers) > 1 else headings:
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(*((row["instance"],) if len(answers) > 1 else ()), *cells(row))
        console.print(table if rows else nothing, highlight=False)
        if left := sum(answer["total"] - len(_rows(answer)) for answer in answers.values() if isinstance(answer, dict)):
            console.print(f"and {left} more", highlight=False)
    for error in errors:
        click.echo(error, err=True)
    if errors or not answers:
        sys.exit(EXIT_OF["broken"])
    return rows


def _rows(answer: Row | list[Row]) -> list[Row]:
    """Of a list, which says how many there are besides, or of differences."""
    return list(answer["rows"] if isinstance(answer, dict) else answer)


def _entry_row(row: Row) -> tuple[str, ...]:
    held = "in sync" if row["in_sync"] else f"{row['realised'] or 'nothing'} {row['reason']}".strip()
    return row["desired"] or "nothing", row["map"], held


def _node_row(row: Row) -> tuple[str, ...]:
    answers = {True: "yes", False: "no", None: "not probed"}[row["answers"]]
    mtu, prefixes = str(row.get("path_mtu") or "unknown"), " ".join(row["pod_cidrs"])
    return row["cluster"], row["name"], row["address"], prefixes, answers, mtu, row["refused"]


def _identity_row(row: Row) -> tuple[str, ...]:
    return row["cluster"], str(row["identity"]), row["labels"]
