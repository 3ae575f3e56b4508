"""One turn of the event loop: all sessions that have something to send are flushed by one callback."""

import asyncio
import logging
from typing import Protocol

from etcdproxy.http2.outbound import LastFrame

logger = logging.getLogger(__name__)


class Flushable(Protocol):
    def flush(self) -> None:
        """Sends what is ready."""

    def abort(self) -> None:
        """Ends the connection: what it has to send cannot be told."""


class Turn:
    """What the sessions of a server have in common."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.last_frame = LastFrame()
        self._loop = loop
        self._due: list[Flushable] = []

    def add(self, session: Flushable) -> None:
        """Flushes it when the callbacks that are ready now have run; to be called once until then."""
        if not self._due:
            self._loop.call_soon(self._flush)
        self._due.append(session)

    def _flush(self) -> None:
        due, self._due = self._due, []
        for session in due:
            try:
                session.flush()
            except Exception:  # a bug; it shall cost this connection, not the others
                logger.exception("a connection failed")
                session.abort()
