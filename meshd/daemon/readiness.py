"""The start-up as named events, in order; each is reached once. No timers: whoever waits, waits for an event."""

from collections.abc import Mapping

EVENTS = ("loaded", "local-synced", "remotes-synced", "reconciled")


class Readiness:
    """Which events were reached, and when (monotonic seconds)."""

    def __init__(self) -> None:
        self.reached: dict[str, float] = {}

    def observe(self, facts: Mapping[str, bool], now: float) -> list[str]:
        """Takes what is true now; returns the events that are reached by that for the first time."""
        new = [name for name in EVENTS if facts.get(name) and name not in self.reached]
        self.reached.update(dict.fromkeys(new, now))
        return new

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(name for name in EVENTS if name not in self.reached)
