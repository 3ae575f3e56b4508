"""Carries out one round on a target, in the worker thread. An entry whose needs could not be met is withheld; what an
entry that could not be changed may still need is not removed.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field

from meshd.reconcile.delta import UNKNOWN, Round, Step
from meshd.reconcile.target import Item, Shape, Target, TargetError, TargetFull

Realised = Mapping[str, Mapping[bytes, bytes]]
Possible = Mapping[Item, Set[bytes]]


@dataclass(slots=True)
class Outcome:
    """What became of each key: by map the value it has now (None: gone), or why it could not be changed.

    `attempted` has the failed operations that were tried and may have had their effect all the same.
    """

    done: defaultdict[str, dict[bytes, bytes | None]] = field(default_factory=lambda: defaultdict(dict))
    failed: dict[Item, str] = field(default_factory=dict)
    attempted: dict[Item, bytes | None] = field(default_factory=dict)
    upserts: int = 0
    deletes: int = 0

    def upserted(self, map: str, items: Mapping[bytes, bytes]) -> None:
        self.upserts += len(items)
        self.done[map].update(items)

    def deleted(self, map: str, keys: list[bytes]) -> None:
        self.deletes += len(keys)
        self.done[map].update(dict.fromkeys(keys))

    def fail(self, map: str, key: bytes, reason: str) -> None:
        self.failed[map, key] = reason


def execute(round: Round, target: Target, shape: Shape, realised: Realised, possible: Possible) -> Outcome:
    """`possible` says what may stand under keys that failed in earlier rounds; this round may have some of them.

    `realised` and `possible` must not change meanwhile.
    """
    outcome = Outcome()
    waiting = set(possible)
    if waiting:
        waiting -= {(step.map, key) for step in (*round.upserts, *round.deletes) for key in step.items}
    for step in round.upserts:
        _upsert(step, target, shape, outcome, waiting)
    for step in round.deletes:
        _delete(step, target, _protected(shape, realised, possible, outcome, waiting), outcome)
    return outcome


def _upsert(step: Step, target: Target, shape: Shape, outcome: Outcome, waiting: Set[Item]) -> None:
    items = dict(step.items)
    if unmet := waiting | outcome.failed.keys():
        for key, value in step.items.items():
            missing = next((need for need in shape.needs(step.map, key, value) if need in unmet), None)
            if missing:
                outcome.fail(step.map, key, f"withheld: {shape.describe(*missing)} could not be written")
                del items[key]
    if not items:
        return
    try:
        target.upsert(step.map, items)
        outcome.upserted(step.map, items)
    except TargetFull as full:
        for key in full.rejected:
            outcome.fail(step.map, key, str(full))
        outcome.upserted(step.map, {key: value for key, value in items.items() if key not in full.rejected})
    except TargetError:
        for key, value in items.items():
            try:
                target.upsert(step.map, {key: value})
                outcome.upserted(step.map, {key: value})
            except TargetError as error:
                outcome.fail(step.map, key, str(error))
                outcome.attempted[step.map, key] = value


def _delete(step: Step, target: Target, protected: set[Item], outcome: Outcome) -> None:
    keys = []
    for key in step.items:
        if (step.map, key) in protected:
            outcome.fail(step.map, key, "withheld: an entry that could not be changed may still need it")
        else:
            keys.append(key)
    try:
        target.delete(step.map, keys)
        outcome.deleted(step.map, keys)
    except TargetError:
        for key in keys:
            try:
                target.delete(step.map, [key])
                outcome.deleted(step.map, [key])
            except TargetError as error:
                outcome.fail(step.map, key, str(error))
                outcome.attempted[step.map, key] = None


def _protected(shape: Shape, realised: Realised, possible: Possible, outcome: Outcome, waiting: Set[Item]) -> set[Item]:
    """Everything that what may stand under the failed keys needs, directly or not."""

    def values(item: Item) -> Iterator[bytes]:
        held = realised.get(item[0], {}).get(item[1], UNKNOWN)
        if held != UNKNOWN:
            yield held
        yield from possible.get(item, ())
        if (attempted := outcome.attempted.get(item)) is not None:
            yield attempted

    protected: set[Item] = set()
    open_items = [*waiting, *outcome.failed]
    while open_items:
        item = open_items.pop()
        for value in values(item):
            for need in shape.needs(*item, value):
                if need not in protected:
                    protected.add(need)
                    open_items.append(need)
    return protected
