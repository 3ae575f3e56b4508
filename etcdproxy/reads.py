"""The part of the audit log that tells of Range requests: who read what, without a line for each.

What a peer reads for the first time within a minute is a line at once, before the answer leaves; at the end of the
minute one line per peer says how often. Keys are told by their first four parts, so that the pages of a list are one.
Everything is bounded: peers, areas of a peer, lines at once.
"""

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass, field

from etcdproxy.peers import Peer

logger = logging.getLogger("meshd.audit")

WINDOW_S = 60.0
_MAX_PEERS = 200  # with a line of their own; the others share one
_MAX_AREAS = 16  # of one peer
_MAX_AREA = 200  # bytes of a key that are told
_MAX_LINES = 100  # told at once in one window; what is left out still counts in the summary
_PARTS = 4  # cilium/state/ip/v1
_MORE = "…"


@dataclass(slots=True)
class _Tally:
    """What one peer read in this window: Ranges by area."""

    role: str
    areas: Counter[str] = field(default_factory=Counter)


class Reads:
    """Takes note of each Range that is answered. Must be used within an event loop."""

    def __init__(self, *, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._peers: dict[str, _Tally] = {}
        self._others = 0  # Ranges of peers that have no tally
        self._lines = 0

    def note(self, peer: Peer, key: bytes) -> None:
        if not self._peers:
            asyncio.get_running_loop().call_later(self._window_s, self._summarise)
        tally = self._peers.get(peer.name)
        if tally is None:
            if len(self._peers) >= _MAX_PEERS:
                self._others += 1
                return
            tally = self._peers[peer.name] = _Tally(peer.role)
        area = area_of(key)
        if area not in tally.areas:
            if len(tally.areas) >= _MAX_AREAS:
                area = _MORE
            elif self._lines < _MAX_LINES:
                self._lines += 1
                logger.info("range read", extra={"peer": peer.name, "role": peer.role, "keys": area})
        tally.areas[area] += 1

    def _summarise(self) -> None:
        peers, others = self._peers, self._others
        self._peers, self._others, self._lines = {}, 0, 0
        for name, tally in peers.items():
            ranges = tally.areas.total()
            if ranges > len(tally.areas):  # else the lines at once have said it all
                keys = ",".join(f"{area}:{count}" for area, count in tally.areas.items())
                extra = {"peer": name, "role": tally.role, "ranges": ranges, "keys": keys, "seconds": self._window_s}
                logger.info("ranges read", extra=extra)
        if others:
            logger.info("ranges read by others", extra={"ranges": others, "seconds": self._window_s})


def area_of(key: bytes) -> str:
    """What a Range beginning at this key is after."""
    return b"/".join(key[:_MAX_AREA].split(b"/")[:_PARTS]).decode(errors="backslashreplace")
