"""`meshd explain`: why something is as it is, from the daemon that decided it."""

import json
import re
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from meshd.asking import INSTANCE, OUTPUT, RUN_DIR, WIDTH, ask
from meshd.console import standard_console
from meshd.status import EXIT_OF, age_text

Answer = dict[str, Any]
_LABEL = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
_NAME = re.compile(f"{_LABEL}/{_LABEL}")


@click.group()
def explain() -> None:
    """Says why something is as it is."""


@explain.command("service")
@click.argument("name", metavar="NAMESPACE/NAME")
@RUN_DIR
@INSTANCE
@OUTPUT
@click.pass_context
def service(ctx: click.Context, name: str, run_dir: Path, instance: str | None, output: str) -> None:
    """Gives the reason for each backend of a global service: used, or why not.

    Exit codes: 0 used as it says, 1 not global here, or with problems, 2 no daemon answers.
    """
    if not _NAME.fullmatch(name):
        raise click.UsageError(f"{name!r} is not NAMESPACE/NAME")
    answers, errors = ask(run_dir, instance, f"/v1/services/{name}")
    if output == "json":
        click.echo(json.dumps(answers, indent=2))
    else:
        console = standard_console(WIDTH)
        for answer in answers:
            show(answer, console)
    for error in errors:
        click.echo(error, err=True)
    if errors or not answers:
        ctx.exit(EXIT_OF["broken"])
    ctx.exit(EXIT_OF["ok" if all(map(_is_fine, answers)) else "degraded"])


@explain.command("ip")
@click.argument("address", metavar="ADDRESS")
@RUN_DIR
@INSTANCE
@OUTPUT
@click.pass_context
def ip(ctx: click.Context, address: str, run_dir: Path, instance: str | None, output: str) -> None:
    """Says which clusters say something about an address, who is believed and why, and what the kernel has.

    Exit codes: 0 one is believed, 1 none is, 2 no daemon answers.
    """
    try:
        ip_address(address)
    except ValueError as problem:
        raise click.UsageError(f"{address!r} is not an IP address") from problem
    if "%" in address:
        raise click.UsageError(f"{address!r} has a scope: such addresses do not leave their link, say it without")
    answers, errors = ask(run_dir, instance, f"/v1/ip/{address}")
    if output == "json":
        click.echo(json.dumps(answers, indent=2))
    else:
        for answer in answers:
            for line in ip_lines(answer):
                click.echo(line)
    for error in errors:
        click.echo(error, err=True)
    if errors or not answers:
        ctx.exit(EXIT_OF["broken"])
    believed = all(any(claim["believed"] for claim in answer["claims"]) for answer in answers)
    ctx.exit(EXIT_OF["ok" if believed else "degraded"])


def ip_lines(answer: Answer) -> Iterator[str]:
    """Who says what of an address, and what the kernel has."""
    yield f"{answer['address']} on {answer.get('instance', 'any node')}"
    if answer["reason"]:
        yield f"  {answer['reason']}"
    for claim in answer["claims"]:
        held = f" for {age_text(claim['held_age_s'])}" if claim["held_age_s"] is not None else ""
        verdict = "BELIEVED" if claim["believed"] else f"NOT BELIEVED: {claim['reason']}{held}"
        lost = f" for {age_text(claim['lost_age_s'])}" if claim["lost_age_s"] is not None else ""
        yield f"  {claim['cluster']} ({claim['presence']}{lost}): {claim['says']}: {verdict}"
    for entry in answer["realised"] or ["nothing"]:
        yield f"  kernel: {entry}"


def show(answer: Answer, console: Console) -> None:
    """One daemon's reasons for people."""
    console.print(Text.assemble((answer["name"], "bold"), f" on {answer['instance']}"))
    if not answer["is_global"]:
        console.print(f"  NOT GLOBAL: {answer['reason']}", highlight=False, markup=False)
    for problem in answer["problems"]:
        console.print(f"  ! {problem}", highlight=False, markup=False)
    if not answer["is_global"]:
        return
    affinity = answer["session_affinity_timeout_s"]
    session = f", a client stays with its backend for {affinity} s" if affinity else ""
    console.print(f"  new connections: {answer['balancing']}{session}", highlight=False)
    for frontend in answer["frontends"]:
        console.print(f"  {frontend['frontend']} {frontend.get('port_name', '')}".rstrip(), highlight=False)
        for reason in (frontend["reason"], frontend.get("not_realised")):
            if reason:
                console.print(f"    ! {reason}", highlight=False, markup=False)
        console.print(_table(frontend["backends"], answer["links"]))
    if answer["unmatched"]:
        console.print("  behind no frontend", highlight=False)
        console.print(_table(answer["unmatched"], answer["links"]))


def _table(backends: list[Answer], links: dict[str, str]) -> Table:
    table = Table(box=None, padding=(0, 0, 0, 4), show_header=False)
    for _ in range(4):
        table.add_column(overflow="fold")
    for backend in sorted(backends, key=lambda each: not each["used"]):
        used = "USED" if backend["used"] else "NOT USED"
        share = f" {backend['share']:.1%}" if backend.get("share") else ""
        link = links.get(backend["cluster"], "ready")
        notes = [backend["reason"], f"link {link}" if link != "ready" else "", backend.get("not_realised") or ""]
        table.add_row(backend["backend"], backend["cluster"], f"{used}{share}", "; ".join(filter(None, notes)))
    return table


def _is_fine(answer: Answer) -> bool:
    return answer["is_global"] and not answer["problems"]
