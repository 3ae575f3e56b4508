"""Asking the daemons of this machine: which ones, and what is said if none answers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from meshd.console import standard_console
from meshd.socket import SocketError, get

RUN_DIR = click.option("--run-dir", type=click.Path(path_type=Path), default=Path("/run/meshd"), show_default=True)
INSTANCE = click.option("--instance", help="Only this one.  [default: every daemon of the run directory]")
OUTPUT = click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
SHOWN = 5
WIDTH = 100  # columns where there is no terminal


def daemon_sockets(run_dir: Path, instance: str | None) -> list[Path]:
    """The sockets to ask."""
    return sorted(run_dir.glob(f"{instance or '*'}/daemon.sock"))


def ask(run_dir: Path, instance: str | None, route: str) -> tuple[list[Any], list[str]]:
    """The answers of the daemons of this machine, and what is wrong with those that gave none."""
    answers, errors = ask_each(run_dir, instance, route)
    return list(answers.values()), errors


def ask_each(run_dir: Path, instance: str | None, route: str) -> tuple[dict[str, Any], list[str]]:
    """The same, with the answers by instance."""
    answers, errors = {}, []
    for path in daemon_sockets(run_dir, instance):
        try:
            answers[path.parent.name] = get(path, route)
        except SocketError as error:
            errors.append(str(error))
    if not answers and not errors:
        errors.append(nobody(run_dir, instance))
    return answers, errors


def nobody(run_dir: Path, instance: str | None) -> str:
    """No daemon has a socket there: what to look at."""
    others = [path.parent.name for path in daemon_sockets(run_dir, None)] if instance else []
    if not others:
        return f"no daemon in {run_dir}: is `meshd daemon` running, with this --run-dir?"
    more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
    return f"no daemon {instance} in {run_dir}: there are {', '.join(others[:SHOWN])}{more}"


def show_each(answers: Mapping[str, Any], text: Callable[[Any], Table | str]) -> None:
    """One daemon's answer below the other; of several it is said whose."""
    for name, answer in answers.items():
        if len(answers) > 1:
            click.echo(f"{name}:")
        standard_console(WIDTH).print(text(answer), highlight=False)
