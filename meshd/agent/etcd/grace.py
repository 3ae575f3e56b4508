"""Waiting before something is given up: who has been unwanted for long enough."""

from collections.abc import Set


class Grace:
    """Remembers since when. Costs what is unwanted, whenever it is asked."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._since: dict[int, float] = {}

    def due(self, unwanted: Set[int], *, now: float) -> list[int]:
        """Those that have been unwanted at every call for the grace time, in order; they are forgotten here."""
        self._since = {number: self._since.get(number, now) for number in unwanted}
        due = sorted(number for number, since in self._since.items() if now - since >= self._grace_s)
        for number in due:
            del self._since[number]
        return due
