import gc
import weakref
from collections.abc import Iterator

import pytest

from etcdproxy.heap import lasting_heap
from etcdproxy.history import History
from tests.support.entries import entry


class Tracked(History):
    """A history that can be watched going."""


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_a_history_that_lasts_is_not_looked_at_and_is_freed_once_nobody_has_it() -> None:
    with lasting_heap():
        assert not gc.isenabled()
        history = Tracked({b"%d" % number: entry(b"%d" % number, b"", 5) for number in range(1000)}, 5)
    assert gc.isenabled()
    assert gc.get_freeze_count() > 1000
    for revision in range(6, 50):
        history.add(revision, [(b"1", entry(b"1", b"x", revision)), (b"2", None)])
    gone = weakref.ref(history)
    del history
    assert gone() is None  # without the collector, which no longer sees it


def test_after_a_failure_the_collector_is_on_again_and_sees_what_was_made() -> None:
    before = gc.get_freeze_count()
    with pytest.raises(KeyError), lasting_heap():
        raise KeyError
    assert gc.isenabled()
    assert gc.get_freeze_count() == before
