from meshd.reconcile.retry import FIRST_S, MAX_S, RetryQueue

KEY = ("map", b"key")


def test_back_off_doubles_up_to_its_cap() -> None:
    queue, now, waits = RetryQueue(), 0.0, []
    for _ in range(12):
        queue.fail(KEY, "full", now)
        due = queue.next_due()
        assert due is not None
        waits.append(due - now)
        now = due
    assert waits[0] == FIRST_S
    assert [round(wait, 6) for wait in waits] == sorted(round(wait, 6) for wait in waits)
    assert round(waits[-1], 6) == MAX_S


def test_a_key_is_due_when_its_time_has_come() -> None:
    queue = RetryQueue()
    queue.fail(KEY, "full", 10.0)
    assert queue.due(10.0) == []
    assert queue.due(10.0 + FIRST_S) == [KEY]


def test_success_forgets_and_the_age_is_that_of_the_first_failure() -> None:
    queue = RetryQueue()
    queue.fail(KEY, "full", 10.0)
    queue.fail(KEY, "gone", 20.0)
    assert (queue.failures[KEY].since, queue.failures[KEY].reason) == (10.0, "gone")
    queue.succeed([KEY])
    assert queue.next_due() is None
