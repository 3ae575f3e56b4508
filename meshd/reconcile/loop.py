"""Brings targets to what is desired, round by round: bring desired up to date, plan, work in the one worker thread,
record what succeeded. One round at a time; whatever becomes dirty meanwhile is the next round.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn

from meshd.reconcile.delta import Delta, Round
from meshd.reconcile.execution import Outcome, execute
from meshd.reconcile.retry import RetryQueue
from meshd.reconcile.target import Shape, Target

BRIEF = 512
"""Operations that are carried out in the event loop itself, where each takes a microsecond or two."""
logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Reconciler:
    """One target with its desired and realised entries, and the keys that fail."""

    name: str
    target: Target
    shape: Shape
    delta: Delta = field(init=False)
    retries: RetryQueue = field(default_factory=RetryQueue)
    rounds: int = 0
    upserts: int = 0
    deletes: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """How often an entry of a map could not be changed in a round, tried or withheld."""
    last_round: str = "none yet"
    in_sync_since: float | None = None

    def __post_init__(self) -> None:
        self.delta = Delta(self.shape)

    def record(self, outcome: Outcome, now: float) -> str:
        """Takes over what succeeded; returns the round as a sentence."""
        for map, written in outcome.done.items():
            self.delta.record(map, written)
            self.retries.succeed((map, key) for key in written)
        for item, reason in outcome.failed.items():
            if item in outcome.attempted:
                self.delta.record_attempt(*item, outcome.attempted[item])
            else:
                self.delta.record_failure(*item)
            self.retries.fail(item, reason, now)
            self.errors[item[0]] += 1
        self.rounds += 1
        self.upserts += outcome.upserts
        self.deletes += outcome.deletes
        self.last_round = self._sentence(outcome)
        return self.last_round

    def settle(self, now: float) -> None:
        """A key that failed and is not wanted to change any more is no failure."""
        for item in self.delta.settle():
            self.retries.succeed([item])
        if self.retries.failures:
            self.in_sync_since = None
        elif self.in_sync_since is None:
            self.in_sync_since = now

    def _sentence(self, outcome: Outcome) -> str:
        counts = dict.fromkeys(
            (*(map for map, keys in outcome.done.items() if keys), *(map for map, _ in outcome.failed))
        )
        state = f"{len(self.retries.failures)} keys failing" if self.retries.failures else "in sync"
        return (
            f"{', '.join(counts)}: {outcome.upserts} upserts, {outcome.deletes} deletes, "
            f"{len(outcome.failed)} failed, {state}"
        )


class Loop:
    """Runs the reconcilers, in this order. `refresh` brings desired up to date; it returns True if there is more to
    come, so that a flood is taken in slices. `settled` is called after the rounds; `took` with the seconds from the
    first of the wakes that a round served to its end.
    """

    def __init__(
        self,
        reconcilers: Sequence[Reconciler],
        executor: Executor,
        *,
        refresh: Callable[[], bool],
        settled: Callable[[], None],
        took: Callable[[float], object] = lambda seconds: None,
    ) -> None:
        self._took = took
        self._woken_at: float | None = None
        self._reconcilers, self._executor, self._refresh, self._settled = reconcilers, executor, refresh, settled
        self._dirty = asyncio.Event()

    def wake(self) -> None:
        """Something became dirty."""
        if self._woken_at is None:
            self._woken_at = time.monotonic()
        self._dirty.set()

    async def run(self) -> NoReturn:
        while True:
            await self._wait()
            self._dirty.clear()
            woken_at, self._woken_at = self._woken_at, None
            if more := self._refresh():
                self._dirty.set()
            for reconciler in self._reconcilers:
                await self._round(reconciler)
            self._settled()
            if more:  # the oldest of what is left has waited since then
                self._woken_at = woken_at
            elif woken_at is not None:
                self._took(time.monotonic() - woken_at)
            await asyncio.sleep(0)  # slices without a difference would keep everybody else waiting

    async def _round(self, reconciler: Reconciler) -> None:
        now = time.monotonic()
        for item in reconciler.retries.due(now):
            reconciler.delta.touch(item)
        round = reconciler.delta.plan()
        if round is not None:
            outcome = await self._carry_out(reconciler, round)
            sentence = reconciler.record(outcome, time.monotonic())
            level = logging.WARNING if outcome.failed else logging.DEBUG
            logger.log(level, "round", extra={"target": reconciler.name, "result": sentence})
            for item, reason in list(outcome.failed.items())[:3]:
                logger.debug("failed", extra={"key": reconciler.shape.describe(*item), "reason": reason})
        reconciler.settle(time.monotonic())

    async def _carry_out(self, reconciler: Reconciler, round: Round) -> Outcome:
        delta = reconciler.delta
        work = partial(execute, round, reconciler.target, reconciler.shape, delta.realised, delta.possible)
        if _is_brief(round, reconciler):
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def _wait(self) -> None:
        due = min((d for r in self._reconcilers if (d := r.retries.next_due()) is not None), default=None)
        timeout = None if due is None else max(0.0, due - time.monotonic())
        try:
            async with asyncio.timeout(timeout):
                await self._dirty.wait()
        except TimeoutError:
            return


def _is_brief(round: Round, reconciler: Reconciler) -> bool:
    """So little that going to the worker thread and back would take longer: two threads to wake, on a busy machine."""
    steps = (*round.upserts, *round.deletes)
    operations = sum(len(step.items) for step in steps) + len(reconciler.delta.possible)
    return operations <= BRIEF and all(reconciler.shape.is_brief(step.map) for step in steps)
