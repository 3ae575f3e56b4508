"""Slots: few move, and aliases give shares by weight."""

from hypothesis import given
from hypothesis import strategies as st

from datapath.slots import CHANCE_ONE, compute_aliases, place_slots

NAMES = st.lists(st.integers(0, 30), unique=True, max_size=20)


@given(NAMES, NAMES)
def test_slots_hold_what_is_wanted_and_move_no_more_than_they_must(before: list[int], wanted: list[int]) -> None:
    after = place_slots(before, wanted)
    assert sorted(after) == sorted(wanted)
    changed = sum(1 for old, new in zip(before, after, strict=False) if old != new)
    assert changed <= len(set(before) - set(wanted))
    assert place_slots(after, wanted) == after


def test_the_last_one_fills_a_hole_and_a_newcomer_goes_before() -> None:
    assert place_slots("abcd", "acd") == ("a", "d", "c")
    assert place_slots("abcd", "acdx") == ("a", "x", "c", "d")
    assert place_slots("", "ab") == ("a", "b")


@given(st.lists(st.integers(1, 1 << 30), min_size=1, max_size=40))
def test_aliases_give_each_slot_its_share(weights: list[int]) -> None:
    aliases = compute_aliases(weights)
    count = len(weights)
    seen = [0.0] * count
    for index, (chance, alias) in enumerate(aliases):
        seen[index] += (CHANCE_ONE - chance) / CHANCE_ONE / count
        if chance:
            seen[alias - 1] += chance / CHANCE_ONE / count
    for weight, share in zip(weights, seen, strict=True):
        assert abs(share - weight / sum(weights)) <= 2 / CHANCE_ONE


def test_equal_weights_need_no_alias() -> None:
    assert compute_aliases([7, 7, 7]) == [(0, 0)] * 3
