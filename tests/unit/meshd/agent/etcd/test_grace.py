from meshd.agent.etcd.grace import Grace


def test_what_is_unwanted_long_enough_is_due_once() -> None:
    grace = Grace(10.0)
    assert grace.due({1, 2}, now=0.0) == []
    assert grace.due({1, 2, 3}, now=9.0) == []
    assert grace.due({1, 2, 3}, now=10.0) == [1, 2]
    assert grace.due({3}, now=19.0) == [3]


def test_wanted_in_between_starts_anew() -> None:
    grace = Grace(10.0)
    grace.due({1}, now=0.0)
    grace.due(set(), now=5.0)
    assert grace.due({1}, now=10.0) == []
    assert grace.due({1}, now=20.0) == [1]
