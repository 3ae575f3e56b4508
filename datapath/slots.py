"""Which backend stands in which slot of a frontend, and how slots are weighted. Pure.

A change of one backend changes one or two slots, however many there are: newcomers take the place of those that left,
then the last ones move into what is free.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

CHANCE_ONE = 1 << 16
"""The chance of 1; a slot holds at most one less."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A reference to a backend. With `chance` of 65 536 the slot `alias` is used in its place."""

    backend_id: int
    chance: int = 0
    alias: int = 0


def place_slots(before: Sequence[T], wanted: Iterable[T]) -> tuple[T, ...]:
    """Where each of `wanted` stands (from 0), close to where `before` had them."""
    left = dict.fromkeys(wanted)
    slots: list[T | None] = []
    for each in before:
        slots.append(each if each in left else None)
        left.pop(each, None)
    newcomers = iter(left)
    slots = [next(newcomers, None) if each is None else each for each in slots]
    placed = [each for each in slots if each is not None]
    if len(placed) == len(slots):
        return (*placed, *newcomers)
    # Fewer than before: the last ones fill the holes.
    kept, spare = slots[: len(placed)], iter([each for each in slots[len(placed) :] if each is not None])
    return tuple(each if each is not None else next(spare) for each in kept)


def compute_aliases(weights: Sequence[int]) -> list[tuple[int, int]]:
    """(chance, alias slot) for each slot, so that a uniform choice of slots gives shares by weight (Walker's and Vose's
    alias method: two look-ups whatever the weights are). Weights are positive; slots are numbered from 1.
    """
    count, total = len(weights), sum(weights)
    fill = [weight * count for weight in weights]
    aliases = [(0, 0)] * count
    small = [index for index in range(count) if fill[index] < total]
    large = [index for index in range(count) if fill[index] > total]
    while small and large:
        poor, rich = small.pop(), large[-1]
        chance = (total - fill[poor]) * CHANCE_ONE // total
        aliases[poor] = (min(chance, CHANCE_ONE - 1), rich + 1)
        fill[rich] -= total - fill[poor]
        if fill[rich] <= total:
            large.pop()
            if fill[rich] < total:
                small.append(rich)
    return aliases
