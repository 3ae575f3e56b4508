"""What the commands of `meshd certs` share: how they refuse, and options for directories."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import click

from certs.names import CertsError


class Refusal(click.ClickException):
    """The command was used wrongly, or its files do not allow it: exit code 3."""

    exit_code = 3

    @classmethod
    def of(cls, error: CertsError | OSError) -> Self:
        """Says which file it is about."""
        if isinstance(error, OSError) and error.filename is not None:
            return cls(f"{error.filename}: {error.strerror}; is it the right path, and may this user use it?")
        return cls(str(error))


def directory(name: str, text: str, **settings: Any) -> Callable[..., Any]:
    """An option that takes a directory."""
    return click.option(name, type=click.Path(file_okay=False, path_type=Path), help=text, **settings)
