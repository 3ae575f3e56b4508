"""`meshd certs`: makes the CA of a mesh, issues its leaves, shows what there is. Never prints a key."""

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from certs.authority import CA_FOLDER, DEFAULT_COMMON_NAME, init_ca, load_ca
from certs.inspection import Summary, list_certificates
from certs.leaves import issue
from certs.names import CertsError, Leaf

_EXPIRES_SOON = 14  # days


class _Refusal(click.ClickException):
    exit_code = 3


def _directory(name: str, text: str, **settings: Any) -> Callable[..., Any]:
    return click.option(name, type=click.Path(file_okay=False, path_type=Path), help=text, **settings)


@click.group()
def certs() -> None:
    """Certificates of the mesh: one CA, and leaves for proxies and their readers."""


@certs.command("init")
@_directory("--dir", "Directory to hold the CA (in ca/).", required=True)
@click.option("--common-name", default=DEFAULT_COMMON_NAME, show_default=True, help="Name of the CA.")
def init_command(dir: Path, common_name: str) -> None:
    """Make a CA, valid for 10 years. An existing one is never overwritten."""
    try:
        init_ca(dir, common_name=common_name, now=datetime.now(UTC))
    except (CertsError, OSError) as error:
        raise _Refusal(str(error)) from error
    click.echo(f"made {dir / CA_FOLDER}")


@certs.command("issue")
@click.argument("leaves", metavar="LEAF...", nargs=-1, required=True)
@_directory("--dir", "Directory that holds the CA (in ca/).", required=True)
@_directory("--out", "Directory for the leaves' folders; --dir if not given.")
@click.option("--name", "names", multiple=True, help="A further DNS name; may be given several times.")
@click.option("--ip", "addresses", multiple=True, help="An IP address; may be given several times.")
def issue_command(
    leaves: tuple[str, ...], dir: Path, out: Path | None, names: tuple[str, ...], addresses: tuple[str, ...]
) -> None:
    """Issue leaves, valid for 90 days, each into a folder with tls.crt, tls.key and ca.crt.

    A LEAF is server-CLUSTER, remote-CLUSTER, local-CLUSTER, daemon-CLUSTER or admin-CLUSTER. The folder of a server
    is called `server`, the others have the name of their leaf.
    """
    try:
        wanted = [Leaf.parse(leaf) for leaf in leaves]
        authority = load_ca(dir)
        for leaf in wanted:
            folder = issue(authority, leaf, out or dir, now=datetime.now(UTC), names=names, addresses=addresses)
            click.echo(f"issued {leaf.common_name} in {folder}")
    except (CertsError, OSError) as error:
        raise _Refusal(str(error)) from error


@certs.command("show")
@_directory("--dir", "Directory that holds the certificates.", required=True)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def show_command(dir: Path, output: str) -> None:
    """Show the certificates of a directory and how many days they have left."""
    try:
        found = list_certificates(dir, now=datetime.now(UTC))
    except OSError as error:
        raise _Refusal(str(error)) from error
    if output == "json":
        click.echo(json.dumps([dataclasses.asdict(summary) for summary in found], indent=2))
    else:
        Console().print(_table(found))


def _table(found: list[Summary]) -> Table:
    table = Table("KIND", "COMMON NAME", "NAMES", "NOT AFTER", "DAYS LEFT", "FILE", box=None, pad_edge=False)
    for summary in found:
        if summary.problem:
            table.add_row(summary.kind, "", "", "", f"[red]unreadable: {summary.problem}[/]", summary.path)
            continue
        colour = "red" if summary.days_left < 0 else "yellow" if summary.days_left < _EXPIRES_SOON else "green"
        days = f"[{colour}]{summary.days_left}[/]"
        names = ", ".join(summary.names) or "-"
        table.add_row(summary.kind, summary.common_name, names, summary.not_after[:10], days, summary.path)
    return table
