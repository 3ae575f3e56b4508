"""What the commands of `meshd certs` share: how they refuse, and options for directories."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


class Refusal(click.ClickException):
    """The command was used wrongly, or its files do not allow it: exit code 3."""

    exit_code = 3


def directory(name: str, text: str, **settings: Any) -> Callable[..., Any]:
    """An option that takes a directory."""
    return click.option(name, type=click.Path(file_okay=False, path_type=Path), help=text, **settings)
