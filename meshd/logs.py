"""One line per event: time, level, logger, message, then what was given as `extra`, as key=value."""

import logging
import sys
import time
from typing import Any

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class KeyValueFormatter(logging.Formatter):
    """`2026-01-31T10:20:30.123Z info meshd.daemon: remote synced cluster=cluster2 revision=12`"""

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"
    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        extras = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if not extras:
            return line
        head, newline, rest = line.partition("\n")
        return head + "".join(f" {key}={_text(value)}" for key, value in extras.items()) + newline + rest


def _text(value: Any) -> str:
    text = str(value)
    plain = text.isprintable() and not any(character in ' "=' for character in text)
    return text if text and plain else repr(text)  # which commands no terminal, and begins no line of its own


def configure_logging(level: int) -> None:
    """Sends the log to standard error. Called once, by the program."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
