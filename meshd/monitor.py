"""`meshd monitor`: what the kernels of this machine's daemons decide about packets, as it happens."""

import json
import time
from pathlib import Path
from typing import Any

import click

from meshd.explain import ask
from meshd.policies import party_text
from meshd.socket import SocketError, get
from meshd.status import EXIT_OF, daemon_sockets

POLL_S = 0.25
Event = dict[str, Any]


@click.command()
@click.option("--drops", is_flag=True, help="Only what was dropped, or would be.")
@click.option("--from", "source", help="Only packets from this address or NAMESPACE/POD.")
@click.option("--to", "destination", help="Only packets to this address or NAMESPACE/POD.")
@click.option("--seconds", type=float, help="End after this time.  [default: go on]")
@click.option("--last", type=int, default=0, help="Begin with this many of the past.")
@click.option("--run-dir", type=click.Path(path_type=Path), default=Path("/run/meshd"), show_default=True)
@click.option("--instance", help="Only this one.  [default: every daemon of the run directory]")
@click.option("-o", "output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.pass_context
def monitor(
    ctx: click.Context,
    drops: bool,
    source: str | None,
    destination: str | None,
    seconds: float | None,
    last: int,
    run_dir: Path,
    instance: str | None,
    output: str,
) -> None:
    """Shows verdicts on new connections and every drop by policy, with who, whose, and by which rule.

    The kernel tells at most a thousand a second and CPU; what is not told is counted. JSON: one object a line.
    Exit codes: 0 ok, 2 no daemon answers.
    """
    answers, errors = ask(run_dir, instance, f"/v1/verdicts/{1 << 62}")
    for error in errors:
        click.echo(error, err=True)
    if not answers:
        ctx.exit(EXIT_OF["broken"])
    seen: dict[Path, int] = {}
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        for path in daemon_sockets(run_dir, instance):
            _show_news(path, seen, last, lambda event: _is_wanted(event, drops, source, destination), output)
        if deadline is not None and time.monotonic() >= deadline:
            return
        time.sleep(POLL_S)


def _show_news(path: Path, seen: dict[Path, int], last: int, wanted: Any, output: str) -> None:
    try:
        if path not in seen:
            seen[path] = max(0, get(path, f"/v1/verdicts/{1 << 62}")["told"] - last)
        answer = get(path, f"/v1/verdicts/{seen[path]}")
    except SocketError:
        return
    if answer["told"] < seen[path]:  # a new process counts anew
        seen[path] = 0
        return
    seen[path] = answer["told"]
    if answer["lost"]:
        click.echo(f"{path.parent.name}: {answer['lost']} events came too fast to be shown", err=True)
    for event in filter(wanted, answer["events"]):
        told = {"instance": path.parent.name, **event}
        click.echo(json.dumps(told) if output == "json" else event_text(path.parent.name, event))


def _is_wanted(event: Event, drops: bool, source: str | None, destination: str | None) -> bool:
    def fits(party: Event, wanted: str | None) -> bool:
        return wanted is None or wanted in (party["address"], party["pod"])

    return (
        not (drops and event["verdict"] == "allow")
        and fits(event["source"], source)
        and fits(event["destination"], destination)
    )


def event_text(instance: str, event: Event) -> str:
    """One line for people."""
    why = "; ".join(event["by"]) or {"policy-closed": "no rule allows it"}.get(event["reason"], event["reason"])
    ends = f"{party_text(event['source'])} -> {party_text(event['destination'])}"
    place = f"{event['direction']} {event['protocol']}/{event['destination']['port']}"
    return f"{instance}: {event['verdict']} {place} {ends}: {why}"
