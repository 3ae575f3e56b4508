"""`meshd events`: what happened to the remote clusters, as the daemons of this machine saw it."""

import json
import time
from pathlib import Path
from typing import Any

import click

from meshd.asking import INSTANCE, OUTPUT, RUN_DIR, daemon_sockets, nobody
from meshd.socket import SocketError, get
from meshd.status import EXIT_OF, age_text

POLL_S = 0.5
Answer = dict[str, Any]


@click.command()
@RUN_DIR
@INSTANCE
@click.option("-f", "--follow", is_flag=True, help="Go on showing what happens.")
@OUTPUT
@click.pass_context
def events(ctx: click.Context, run_dir: Path, instance: str | None, follow: bool, output: str) -> None:
    """Shows joins, losses, withdrawals, quarantine and other happenings, the oldest first; as json a line each.

    Exit codes: 0 ok, 2 no daemon answers.
    """
    seen: dict[Path, int] = {}
    while True:
        rows = [row for path in daemon_sockets(run_dir, instance) for row in _new(path, seen)]
        for row in sorted(rows, key=lambda row: -row["age_s"]):
            click.echo(json.dumps(row) if output == "json" else _line(row))
        if not seen:
            click.echo(nobody(run_dir, instance), err=True)
            ctx.exit(EXIT_OF["broken"])
        if not follow:
            return
        time.sleep(POLL_S)


def _new(path: Path, seen: dict[Path, int]) -> list[Answer]:
    """What was not seen yet. A daemon that started anew begins to count anew."""
    try:
        answer = get(path, f"/v1/events/{seen.get(path, 0)}")
        if answer["last"] < seen.get(path, 0):
            answer = get(path, "/v1/events/0")
    except SocketError:
        return []
    seen[path] = answer["last"]
    return [{"instance": path.parent.name, **row} for row in answer["events"]]


def _line(row: Answer) -> str:
    words = [f"{age_text(row['age_s'])} ago", row["instance"], row["cluster"] or "-", row["event"], row["detail"]]
    return "  ".join(word for word in words if word)
