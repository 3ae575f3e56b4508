"""One turn of the event loop: all sessions that have something to send are served by one callback.

First all make what they send, then all of it is encrypted and written: encrypting empties the processor's caches of
what making needs.
"""

import asyncio
import logging
from typing import Protocol

from etcdproxy.http2.outbound import LastFrame

logger = logging.getLogger(__name__)

_HELD_BYTES = 1 << 20  # made and not written yet


class Sender(Protocol):
    def gather(self) -> bytes:
        """What is ready, as far as there is room."""

    def send(self, data: bytes) -> None:
        """Writes what was gathered."""

    def abort(self) -> None:
        """Ends the connection: what it has to send cannot be told."""


class Turn:
    """What the sessions of a server have in common."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.last_frame = LastFrame()
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
            session.send(data)
        except Exception:
            _give_up(session)


def _give_up(session: Sender) -> None:
    logger.exception("a connection failed")  # a bug; it shall cost this connection, not the others
    session.abort()
