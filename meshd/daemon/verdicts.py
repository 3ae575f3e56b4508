"""What the kernel told of verdicts, the last few thousand, each with a number. Bounded in every direction: the kernel
tells at most a thousand a second and CPU and counts the rest; what nobody has read when it falls off is counted too.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Iterable

from datapath.layout import NOT_DROPS, DropReason
from datapath.ringbuf import PacketEvent, Ring, parse_event

KEPT = 4096
SLICE = 1000


class Verdicts:
    """`attach` to a ring inside a running loop; `since` for those who watch."""

    def __init__(self) -> None:
        self.kept: deque[tuple[int, PacketEvent]] = deque(maxlen=KEPT)
        self.told = 0
        """How many the kernel told."""
        self.by_reason: Counter[DropReason] = Counter()
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
            event = parse_event(record)
            self.told += 1
            self.by_reason[event.reason] += 1
            self.kept.append((self.told, event))

    def since(self, after: int) -> tuple[list[tuple[int, PacketEvent]], int]:
        """Those with a greater number than `after`, and how many of these were forgotten already."""
        found = [(number, event) for number, event in self.kept if number > after]
        return found, self.told - after - len(found) if after <= self.told else 0

    def _read(self) -> None:
        """A slice; the rest makes the descriptor readable again at once."""
        if self._ring is not None:
            self.add(self._ring.read(SLICE))


def is_drop(event: PacketEvent) -> bool:
    return event.reason is not DropReason.NONE and event.reason not in NOT_DROPS
