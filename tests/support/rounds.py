"""Rounds of reconcilers without a loop, a thread or a clock: time passes with each round, so that whatever failed is
due again.
"""

from meshd.reconcile.execution import execute
from meshd.reconcile.loop import Reconciler

AGAIN_S = 60.0
TRIES = 40


class Rounds:
    """`work` a round, or `settle`."""

    def __init__(self, *reconcilers: Reconciler) -> None:
        self._reconcilers = reconcilers
        self._now = 0.0

    @property
    def failing(self) -> bool:
        return any(reconciler.retries.failures for reconciler in self._reconcilers)

    def work(self) -> None:
        """One round of each."""
        self._now += AGAIN_S
        for one in self._reconcilers:
            for item in one.retries.due(self._now):
                one.delta.touch(item)
            delta = one.delta
            if (round := delta.plan()) is not None:
                one.record(execute(round, one.target, one.shape, delta.realised, delta.possible), self._now)
            one.settle(self._now)

    def settle(self) -> None:
        """Until nothing fails any more, or the test gives up: what is full stays full."""
        for _ in range(TRIES):
            self.work()
            if not self.failing:
                return
