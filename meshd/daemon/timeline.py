"""What happened, in order, as far back as there is room: joins, syncs, losses, withdrawals, refusals."""

import logging
import time
from collections import deque
from dataclasses import dataclass

logger = logging.getLogger(__name__)

KEPT = 1000


@dataclass(frozen=True, slots=True)
class Happening:
    """`number` grows by one; `at` is monotonic, in seconds."""

    number: int
    at: float
    event: str
    cluster: str
    detail: str


class Timeline:
    """`note` logs, too: once, here."""

    def __init__(self) -> None:
        self._kept: deque[Happening] = deque(maxlen=KEPT)
        self.last = 0

    def note(self, event: str, cluster: str = "", detail: str = "", *, bad: bool = False) -> None:
        self.last += 1
        self._kept.append(Happening(self.last, time.monotonic(), event, cluster, detail))
        extra = {"cluster": cluster, "reason": detail or "-"}
        logger.log(logging.WARNING if bad else logging.INFO, event, extra=extra)

    def after(self, number: int) -> list[Happening]:
        return [happening for happening in self._kept if happening.number > number]
