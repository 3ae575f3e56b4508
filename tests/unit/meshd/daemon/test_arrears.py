"""Names wait once each, in the order in which they came."""

from hypothesis import given
from hypothesis import strategies as st

from meshd.daemon.arrears import Arrears

NAMES = st.lists(st.sampled_from("abcdefgh"))


@given(st.lists(NAMES | st.integers(0, 5)))
def test_they_are_taken_as_from_a_list_without_doubles(steps: list[list[str] | int]) -> None:
    arrears, waiting = Arrears(), list[str]()
    for step in steps:
        if isinstance(step, int):
            assert list(arrears.take(step)) == waiting[:step]
            del waiting[:step]
        else:
            arrears.add(step)
            waiting += [name for name in dict.fromkeys(step) if name not in waiting]
        assert (len(arrears), bool(arrears)) == (len(waiting), bool(waiting))
