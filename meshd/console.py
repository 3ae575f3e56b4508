"""Where tables go: to a terminal as wide as it is, to a file or a pipe in a fixed width and without trailing blanks."""

import re
import sys
from typing import Any, TextIO

from rich.console import Console

_TRAILING = re.compile(r"[ \t]+(?=\n)")


def standard_console(width: int) -> Console:
    """For standard output as it is now; `width` in columns where that is no terminal. Text is shown as it is: names and
    labels come from other clusters too.
    """
    if sys.stdout.isatty():
        return _Console(markup=False, emoji=False)
    file: Any = _Trimmed(sys.stdout)  # rich writes and flushes only
    return _Console(width=width, file=file, markup=False, emoji=False)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Who reads has heard enough: the program's business (cli.py), not rich's, which would end it with 1."""
        raise BrokenPipeError


class _Trimmed:
    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        return self._file.write(_TRAILING.sub("", text))

    def flush(self) -> None:
        self._file.flush()
