"""What the kernel told of verdicts and drops, the last few thousand, each with a number. Bounded in every direction:
the kernel tells at most so many a second and CPU of each reason and counts the rest; what nobody has read when it falls
off is counted too. Records stay as they came until somebody asks.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from datapath.layout import NOT_DROPS, DropReason
from datapath.policylayout import Event
from datapath.ringbuf import PacketEvent, Ring, parse_event

KEPT = 4096
SLICE = 1000
MOST = 256
_ALIKE = slice(Event.reason.offset, Event.source_port.offset)
_ALIKE_TOO = slice(Event.destination_port.offset, Event.length.offset)
_NETNS = slice(Event.netns.offset, Event.netns.offset + Event.netns.size)


@dataclass(slots=True)
class Told:
    """`count` events that differ in their source port at most; `event` is the last of them and `number` its number."""

    number: int
    count: int
    record: bytes

    @property
    def event(self) -> PacketEvent:
        return parse_event(self.record)


class Verdicts:
    """`attach` to a ring inside a running loop; `since` for those who watch."""

    def __init__(self) -> None:
        self.kept: deque[bytes] = deque(maxlen=KEPT)
        self.told = 0
        """How many the kernel told."""
        self._ring: Ring | None = None

    def attach(self, ring: Ring) -> None:
        self._ring = ring
        asyncio.get_running_loop().add_reader(ring.fd, self._read)

    def detach(self) -> None:
        if self._ring is not None:
            asyncio.get_running_loop().remove_reader(self._ring.fd)
            self._ring.close()
            self._ring = None

    def add(self, records: Iterable[bytes]) -> None:
        for record in records:
            self.told += 1
            self.kept.append(record)

    def since(self, after: int) -> tuple[list[Told], int, int]:
        """Those with a greater number than `after`, alike ones as one; the number to go on after, as it may be too much
        for one answer; and how many were forgotten before they were asked for.
        """
        first = self.told - len(self.kept) + 1
        start = min(max(after + 1, first), self.told + 1)
        lost = max(0, start - after - 1) if after < self.told else 0
        groups: dict[bytes, Told] = {}
        number = start - 1
        for record in islice(self.kept, start - first, None):
            alike = record[_ALIKE] + record[_ALIKE_TOO] + record[_NETNS]
            if (group := groups.get(alike)) is not None:
                group.number, group.count, group.record = number + 1, group.count + 1, record
            elif len(groups) == MOST:
                break
            else:
                groups[alike] = Told(number + 1, 1, record)
            number += 1
        return sorted(groups.values(), key=lambda group: group.number), number, lost

    def _read(self) -> None:
        """A slice; the rest makes the descriptor readable again at once."""
        if self._ring is not None:
            self.add(self._ring.read(SLICE))


def is_drop(event: PacketEvent) -> bool:
    return event.reason is not DropReason.NONE and event.reason not in NOT_DROPS
