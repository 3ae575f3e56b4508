"""One turn of the event loop: all sessions that have something to send are served by one callback.

First all make what they send, then all of it is encrypted and written, one write directly after the other, and only
then they look what is next: encrypting and writing empties the processor's caches of what else has to be done.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

logger = logging.getLogger(__name__)

_HELD_BYTES = 1 << 20  # made and not written yet


class Sender(Protocol):
    @property
    def write(self) -> Callable[[bytes], None]:
        """Sends bytes."""

    @property
    def unsettled(self) -> bool:
        """Whether `settle` is to be called after what was gathered is written."""

    def gather(self) -> bytes:
        """What is ready, as far as there is room; to be written at once."""

    def settle(self) -> None:
        """Looks whether there is more, or nothing ever again."""

    def abort(self) -> None:
        """Ends the connection: what it has to send cannot be told."""


class Turn:
    """What the sessions of a server have in common."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: list[Sender] = []

    def add(self, session: Sender) -> None:
        """Serves it when the callbacks that are ready now have run; to be called once until then."""
        if not self._due:
            self._loop.call_soon(self._flush)
        self._due.append(session)

    def _flush(self) -> None:
        due, self._due = self._due, []
        gathered: list[tuple[Sender, bytes]] = []
        size = 0
        for session in due:
            try:
                data = session.gather()
            except Exception:
                _give_up(session)
                continue
            gathered.append((session, data))
            size += len(data)
            if size >= _HELD_BYTES:
                _send(gathered)
                gathered, size = [], 0
        _send(gathered)


def _send(gathered: list[tuple[Sender, bytes]]) -> None:
    for session, data in gathered:
        try:
            if data:
                session.write(data)
        except Exception:
            _give_up(session)
    for session, _ in gathered:
        try:
            if session.unsettled:
                session.settle()
        except Exception:
            _give_up(session)


def _give_up(session: Sender) -> None:
    logger.exception("a connection failed")  # a bug; it shall cost this connection, not the others
    session.abort()
