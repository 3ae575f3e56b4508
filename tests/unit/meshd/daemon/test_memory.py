import gc

from meshd.daemon.memory import MANY, Tidying, set_up, tidy


def test_what_large_lists_leave_is_tidied_once_when_they_are_dealt_with() -> None:
    done: list[int] = []
    tidying = Tidying(lambda: done.append(1))
    for listed, settled in ((MANY - 1, True), (MANY - 1, True), (MANY, True), (MANY + 5, False), (MANY + 5, False)):
        tidying.look(listed, settled=settled)
        assert not done, (listed, settled)
    tidying.look(MANY + 5, settled=True)
    tidying.look(MANY + 5, settled=True)
    assert done == [1]
    tidying.look(2 * MANY + 5, settled=True)
    assert done == [1], "perhaps more is coming"
    tidying.look(2 * MANY + 5, settled=True)
    assert done == [1, 1]


def test_to_tidy_makes_room_and_the_collector_leaves_alone_what_stays() -> None:
    before = gc.get_threshold()
    try:
        set_up()
        tidy()
        assert gc.get_freeze_count() > 0
        assert gc.isenabled()
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
