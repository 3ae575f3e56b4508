"""Numbers rest before they are used again, over a restart too."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.daemon import numbers
from meshd.daemon.numbers import GRACE_S, NUMBER_MAX, STEP, Numbers


def restored(taken: set[int], mark: int) -> Numbers:
    made = Numbers()
    made.restore(taken, mark)
    return made


def test_all_others_come_before_a_number_that_was_given_back() -> None:
    made = Numbers()
    first = made.take(0.0)
    made.give_back(first, 0.0)
    assert made.take(GRACE_S + 1) == first + 1


def test_after_the_last_one_they_begin_anew_and_skip_what_is_taken_or_rests() -> None:
    made = restored({1, 2, 3, NUMBER_MAX}, NUMBER_MAX)
    made.give_back(2, 100.0)
    assert made.take(100.0) == 4
    again = restored({1, 3, 4, NUMBER_MAX}, NUMBER_MAX)
    again.give_back(3, 100.0)
    assert again.take(100.0 + GRACE_S) == 2
    assert again.take(100.0 + GRACE_S) == 3


def test_a_restart_goes_on_after_everything_that_was_given_out_before() -> None:
    made = Numbers()
    used = {made.take(0.0) for _ in range(10)}
    for number in used:
        made.give_back(number, 0.0)
    assert restored(set(), made.mark).take(0.0) not in used


def test_without_a_mark_a_restart_goes_on_after_the_largest() -> None:
    assert restored({5, 9}, 0).take(0.0) == 10


@given(st.lists(st.booleans(), max_size=200), st.integers(0, NUMBER_MAX))
def test_what_is_given_out_is_marked_before_and_never_twice(steps: list[bool], mark: int) -> None:
    """True: take one; False: a restart with what is taken and the mark."""
    made, taken = restored(set(), mark), set[int]()
    for step in steps:
        if step:
            number = made.take(0.0)
            assert 1 <= number <= NUMBER_MAX
            assert number not in taken
            assert number <= made.mark <= number + STEP
            taken.add(number)
        else:
            made = restored(taken, made.mark)


def test_the_mark_is_moved_in_large_steps() -> None:
    made = Numbers()
    assert len({(made.take(0.0), made.mark)[1] for _ in range(3 * STEP)}) == 3


def test_what_rests_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "RESTING_MAX", 2)
    made = restored({1, 2, 3}, NUMBER_MAX)
    for number in (1, 2, 3):
        made.give_back(number, 0.0)
    assert made.take(0.0) == 1


def test_what_nobody_used_again_is_given_back() -> None:
    made = restored({1, 2}, NUMBER_MAX)
    made.keep_only({2}, 0.0)
    assert made.take(0.0) == 3
    assert restored({2}, NUMBER_MAX).take(0.0) == 1
