"""Keys that failed, each with its own back-off. Pure: `now` is monotonic seconds."""

from collections.abc import Iterable
from dataclasses import dataclass

from meshd.reconcile.target import Item

FIRST_S = 0.1
MAX_S = 30.0


@dataclass(slots=True)
class Failure:
    """Why a key could not be changed, since when, and when it is tried next."""

    reason: str
    since: float
    due: float
    attempts: int = 1


class RetryQueue:
    """Bounded by the number of keys that are desired or realised."""

    def __init__(self) -> None:
        self.failures: dict[Item, Failure] = {}

    def fail(self, item: Item, reason: str, now: float) -> None:
        """It failed (again): the next try comes after twice the time."""
        failure = self.failures.get(item)
        if failure is None:
            self.failures[item] = Failure(reason, since=now, due=now + FIRST_S)
            return
        failure.reason = reason
        failure.due = now + min(FIRST_S * 2.0 ** min(failure.attempts, 32), MAX_S)
        failure.attempts += 1

    def succeed(self, items: Iterable[Item]) -> None:
        """These are no failures (any more)."""
        if self.failures:
            for item in items:
                self.failures.pop(item, None)

    def due(self, now: float) -> list[Item]:
        return [item for item, failure in self.failures.items() if failure.due <= now]

    def next_due(self) -> float | None:
        """When to look again, None if nothing has failed."""
        return min((failure.due for failure in self.failures.values()), default=None)
