"""The audit log: a line for each stream when it opens and ends, for each refusal and failed handshake.

A peer that provokes refusals by the thousand gets its lines cut, not its refusals: the number left out is said.
"""

import logging
import time
from dataclasses import dataclass, field

from etcdproxy.peers import Peer, Refusal
from etcdproxy.reads import Reads

logger = logging.getLogger("meshd.audit")

_MAX_WATCHED = 16  # distinct starts of intervals that the line of a stream names
_LINES_PER_S = 5.0
_MAX_LINES = 50.0


@dataclass(slots=True)
class StreamRecord:
    """What one stream did."""

    peer: Peer
    address: str
    opened: float = field(default_factory=time.monotonic)
    watches: int = 0
    answers: int = 0
    sent: int = 0  # bytes
    watched: dict[str, None] = field(default_factory=dict)

    def note_watch(self, start: bytes) -> None:
        self.watches += 1
        if len(self.watched) < _MAX_WATCHED:
            self.watched[readable(start)] = None


class Audit:
    """Writes the lines."""

    def __init__(self) -> None:
        self._lines = _MAX_LINES
        self._at = time.monotonic()
        self._left_out = 0
        self._reads = Reads()

    def read(self, peer: Peer, key: bytes) -> None:
        """A Range that is answered: each is counted, few are a line."""
        self._reads.note(peer, key)

    def opened(self, record: StreamRecord) -> None:
        extra = {"peer": record.peer.name, "role": record.peer.role, "address": record.address}
        logger.info("stream opened", extra=extra)

    def ended(self, record: StreamRecord, reason: str) -> None:
        logger.info(
            "stream ended",
            extra={
                "peer": record.peer.name,
                "address": record.address,
                "reason": reason,
                "seconds": round(time.monotonic() - record.opened, 3),
                "watches": record.watches,
                "watched": ",".join(record.watched),
                "answers": record.answers,
                "bytes": record.sent,
            },
        )

    def refused(self, refusal: Refusal, address: str) -> None:
        extra = {"peer": refusal.peer, "address": address, "key": refusal.key, "reason": refusal.reason}
        self._warn("request refused", extra)

    def turned_away(self, address: str, reason: str, detail: str) -> None:
        """A reader whose handshake failed; nobody knows its name."""
        self._warn("handshake failed", {"address": address, "reason": reason, "detail": detail})

    def _warn(self, message: str, extra: dict[str, str]) -> None:
        now = time.monotonic()
        self._lines = min(self._lines + (now - self._at) * _LINES_PER_S, _MAX_LINES)
        self._at = now
        if self._lines < 1:
            self._left_out += 1
            return
        self._lines -= 1
        if self._left_out:
            extra["left_out_before"] = str(self._left_out)
            self._left_out = 0
        logger.warning(message, extra=extra)


def readable(key: bytes) -> str:
    """A key as it may stand in a log: printable, not longer than a person reads."""
    return key[:200].decode(errors="backslashreplace")
