"""`meshd service`: the global services of this cluster, as the daemons of this machine see them."""

import json
from pathlib import Path

import click
from rich.table import Table

from meshd.asking import INSTANCE, OUTPUT, RUN_DIR, ask_each, show_each
from meshd.listing import diff_option, show_diff
from meshd.status import EXIT_OF

_NO_FRONTEND: dict[str, object] = {"frontend": "-", "backends": "-"}


@click.group()
def service() -> None:
    """Shows global services."""


@service.command("list")
@RUN_DIR
@INSTANCE
@OUTPUT
@diff_option
@click.pass_context
def list_services(ctx: click.Context, run_dir: Path, instance: str | None, output: str, *, diff: bool) -> None:
    """Lists global services with their frontends, how many backends each has, and problems.

    Exit codes: 0 ok, 1 a service has a problem or something differs, 2 no daemon answers.
    """
    if diff:
        show_diff(run_dir, instance, output, "service")
    answers, errors = ask_each(run_dir, instance, "/v1/services")
    services = [{"instance": name, **service} for name, answer in answers.items() for service in answer]
    if output == "json":
        click.echo(json.dumps(services, indent=2))
    else:
        show_each(answers, lambda answer: _table(answer) if answer else "no service is global")
    for error in errors:
        click.echo(error, err=True)
    if errors or not answers:
        ctx.exit(EXIT_OF["broken"])
    ctx.exit(EXIT_OF["degraded" if any(service["problems"] for service in services) else "ok"])


def _table(services: list[dict[str, list[dict[str, object]]]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("SERVICE", "FRONTEND", "BACKENDS", "PROBLEMS"):
        table.add_column(heading, overflow="fold")
    for entry in services:
        problems = "; ".join(map(str, entry["problems"]))
        for number, frontend in enumerate(entry["frontends"] or [_NO_FRONTEND]):
            name, note = (str(entry["name"]), problems) if number == 0 else ("", "")
            table.add_row(name, str(frontend["frontend"]), str(frontend["backends"]), note)
    return table
