from collections.abc import Iterable

import pytest

from meshd.reconcile.delta import Delta, Round
from meshd.reconcile.target import Item


class Flat:
    """Maps `a` before `b`; nothing needs anything."""

    def rank(self, map: str, key: bytes) -> int:
        return "ab".index(map)

    def needs(self, map: str, key: bytes, value: bytes) -> Iterable[Item]:
        return ()

    def is_brief(self, map: str) -> bool:
        return True

    def describe(self, map: str, key: bytes) -> str:
        return f"{map}/{key.decode()}"


@pytest.fixture
def delta() -> Delta:
    made = Delta(Flat())
    made.restore("a", {b"1": b"x", b"2": b"y"})
    return made


def planned(round: Round | None) -> list[tuple[str, str, dict[bytes, bytes]]]:
    if round is None:
        return []
    steps = [("upsert", step.map, dict(step.items)) for step in round.upserts]
    return steps + [("delete", step.map, dict(step.items)) for step in round.deletes]


def test_what_was_found_is_left_alone_until_somebody_speaks_of_it(delta: Delta) -> None:
    assert delta.plan() is None
    assert delta.unclaimed() == 2


def test_an_equal_wish_writes_nothing(delta: Delta) -> None:
    delta.want("a", b"1", b"x")
    assert delta.plan() is None
    assert delta.unclaimed() == 1


def test_upserts_go_up_the_ranks_and_deletes_down(delta: Delta) -> None:
    delta.restore("b", {b"9": b"z"})
    for map, key in (("b", b"8"), ("a", b"3")):
        delta.want(map, key, b"v")
    for map, key, held in (("a", b"1", b"x"), ("b", b"9", b"z")):
        delta.want(map, key, held)
        delta.want(map, key, None)
    assert planned(delta.plan()) == [
        ("upsert", "a", {b"3": b"v"}),
        ("upsert", "b", {b"8": b"v"}),
        ("delete", "b", {b"9": b"z"}),
        ("delete", "a", {b"1": b"x"}),
    ]


def test_a_key_that_is_wished_and_unwished_is_no_work(delta: Delta) -> None:
    delta.want("a", b"5", b"v")
    delta.want("a", b"5", None)
    assert delta.plan() is None


def test_pruning_takes_what_may_go_and_was_never_wished(delta: Delta) -> None:
    delta.want("a", b"1", b"x")
    assert delta.prune("a", lambda key, value: value != b"y") == 0
    assert delta.prune("a", lambda key, value: True) == 1
    assert planned(delta.plan()) == [("delete", "a", {b"2": b"y"})]
    assert delta.unclaimed() == 0


def test_only_what_was_recorded_is_realised(delta: Delta) -> None:
    delta.want("a", b"1", b"new")
    delta.plan()
    assert delta.realised["a"][b"1"] == b"x"
    delta.touch(("a", b"1"))
    assert planned(delta.plan()) == [("upsert", "a", {b"1": b"new"})]
    delta.record("a", {b"1": b"new"})
    delta.touch(("a", b"1"))
    assert delta.plan() is None


def test_what_is_in_doubt_is_written_again(delta: Delta) -> None:
    delta.want("a", b"1", b"x")
    delta.doubt("a", [b"1", b"2"])  # nobody has spoken of 2
    assert planned(delta.plan()) == [("upsert", "a", {b"1": b"x"})]


def test_what_was_found_goes_when_it_may_not_when_somebody_does_not_say_it(delta: Delta) -> None:
    """Who says it may not have been heard yet: a claim that is not believed must not take it away."""
    delta.want("a", b"1", None)
    assert (delta.plan(), delta.unclaimed()) == (None, 2)
    delta.prune("a", lambda key, value: True)
    assert planned(delta.plan()) == [("delete", "a", {b"1": b"x", b"2": b"y"})]
