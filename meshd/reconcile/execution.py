"""Carries out one round on a target, in the worker thread. An entry whose needs could not be met is withheld; what an
entry that could not be changed still needs is not removed.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from meshd.reconcile.delta import Round, Step
from meshd.reconcile.target import Item, Shape, Target, TargetError, TargetFull


@dataclass(slots=True)
class Outcome:
    """What became of each key: the value it has now (None: gone), or why it could not be changed."""

    done: dict[Item, bytes | None] = field(default_factory=dict)
    failed: dict[Item, str] = field(default_factory=dict)
    upserts: int = 0
    deletes: int = 0


def execute(
    round: Round,
    target: Target,
    shape: Shape,
    realised: Mapping[str, Mapping[bytes, bytes]],
    failing: Set[Item] = frozenset(),
) -> Outcome:
    """`failing` are keys of earlier rounds that wait for another try; this round may have some of them.

    `realised` is read for the keys that fail, and must not change meanwhile.
    """
    outcome = Outcome()
    waiting = failing - {(step.map, key) for step in (*round.upserts, *round.deletes) for key in step.items}
    for step in round.upserts:
        _upsert(step, target, shape, outcome, waiting)
    for step in round.deletes:
        _delete(step, target, _protected(shape, realised, waiting | outcome.failed.keys()), outcome)
    return outcome


def _upsert(step: Step, target: Target, shape: Shape, outcome: Outcome, waiting: Set[Item]) -> None:
    items = dict(step.items)
    if unmet := waiting | outcome.failed.keys():
        for key, value in step.items.items():
            missing = next((need for need in shape.needs(step.map, key, value) if need in unmet), None)
            if missing:
                outcome.failed[step.map, key] = f"withheld: {shape.describe(*missing)} could not be written"
                del items[key]
    if not items:
        return
    try:
        target.upsert(step.map, items)
        _done(step.map, items, outcome)
    except TargetFull as full:
        outcome.failed.update(((step.map, key), str(full)) for key in full.rejected)
        _done(step.map, {key: value for key, value in items.items() if key not in full.rejected}, outcome)
    except TargetError:
        for key, value in items.items():
            try:
                target.upsert(step.map, {key: value})
                _done(step.map, {key: value}, outcome)
            except TargetError as error:
                outcome.failed[step.map, key] = str(error)


def _done(map: str, items: Mapping[bytes, bytes], outcome: Outcome) -> None:
    outcome.upserts += len(items)
    outcome.done.update(((map, key), value) for key, value in items.items())


def _delete(step: Step, target: Target, protected: set[Item], outcome: Outcome) -> None:
    keys = [key for key in step.items if (step.map, key) not in protected]
    for key in step.items.keys() - set(keys):
        outcome.failed[step.map, key] = "withheld: an entry that could not be changed still needs it"
    try:
        target.delete(step.map, keys)
        _gone(step.map, keys, outcome)
    except TargetError:
        for key in keys:
            try:
                target.delete(step.map, [key])
                _gone(step.map, [key], outcome)
            except TargetError as error:
                outcome.failed[step.map, key] = str(error)


def _gone(map: str, keys: list[bytes], outcome: Outcome) -> None:
    outcome.deletes += len(keys)
    outcome.done.update(((map, key), None) for key in keys)


def _protected(shape: Shape, realised: Mapping[str, Mapping[bytes, bytes]], failed: Set[Item]) -> set[Item]:
    """Everything that what is held under the failed keys needs, directly or not."""
    protected: set[Item] = set()
    open_items = list(failed)
    while open_items:
        map, key = open_items.pop()
        value = realised.get(map, {}).get(key)
        if value is None:
            continue
        for need in shape.needs(map, key, value):
            if need not in protected:
                protected.add(need)
                open_items.append(need)
    return protected
