"""`meshd certs`: makes the CA of a mesh, issues, shows, verifies and rotates its leaves. Never prints a key."""

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from certs.authority import CA_FOLDER, DEFAULT_COMMON_NAME, init_ca, load_ca
from certs.command_rotate import rotate_command
from certs.command_verify import verify_command
from certs.inspection import Summary, list_certificates
from certs.leaves import issue
from certs.names import CertsError, Leaf
from certs.options import Refusal, directory

_EXPIRES_SOON = 14  # days
_PIPED_WIDTH = 160  # columns: whoever reads a pipe wants each row in one line


@click.group()
def certs() -> None:
    """Certificates of the mesh: one CA, and leaves for proxies and their readers."""


certs.add_command(verify_command)
certs.add_command(rotate_command)


@certs.command("init")
@directory("--dir", "Directory to hold the CA (in ca/).", required=True)
@click.option("--common-name", default=DEFAULT_COMMON_NAME, show_default=True, help="Name of the CA.")
def init_command(dir: Path, common_name: str) -> None:
    """Make a CA, valid for 10 years. An existing one is never overwritten."""
    try:
        init_ca(dir, common_name=common_name, now=datetime.now(UTC))
    except (CertsError, OSError) as error:
        raise Refusal.of(error) from error
    click.echo(f"made {dir / CA_FOLDER}")


@certs.command("issue")
@click.argument("leaves", metavar="LEAF...", nargs=-1, required=True)
@directory("--dir", "Directory that holds the CA (in ca/).", required=True)
@directory("--out", "Directory for the leaves' folders; --dir if not given.")
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
        raise Refusal.of(error) from error


@certs.command("show")
@directory("--dir", "Directory that holds the certificates.", required=True)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def show_command(dir: Path, output: str) -> None:
    """Show the certificates of a directory and how many days they have left."""
    try:
        found = list_certificates(dir, now=datetime.now(UTC))
    except OSError as error:
        raise Refusal.of(error) from error
    if output == "json":
        click.echo(json.dumps([dataclasses.asdict(summary) for summary in found], indent=2))
    elif found:
        _print_table(dir, found)
    else:
        click.echo(f"no certificate is in {dir}")


def _print_table(directory: Path, found: list[Summary]) -> None:
    columns = ("KIND", "COMMON NAME", "NAMES", "CA", "TRUSTS", "NOT AFTER", "DAYS LEFT", "FILE")
    table = Table(*columns, box=None, pad_edge=False)
    for one in found:
        file = str(Path(one.path).relative_to(directory))
        if one.problem:
            table.add_row(one.kind, *[""] * 5, Text(f"unreadable: {one.problem}", "red"), file)
            continue
        colour = "red" if one.days_left < 0 else "yellow" if one.days_left < _EXPIRES_SOON else "green"
        days = f"[{colour}]{one.days_left}[/]"
        own = f"{one.id}{' signs' if one.signs else ''}"
        ca = own if one.kind == "ca" else one.issued_by or "[red]unknown[/]"
        names = ", ".join(one.names) or "-"
        trusts = " ".join(one.trusts) or "-"
        table.add_row(one.kind, one.common_name, names, ca, trusts, one.not_after[:10], days, file)
    console = Console()
    if console.is_terminal:
        console.print(table)
        return
    piped = Console(width=_PIPED_WIDTH)
    with piped.capture() as captured:
        piped.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))
