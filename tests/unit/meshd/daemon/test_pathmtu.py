"""The search on a way of which the test knows what it carries."""

import pytest

from meshd.daemon.pathmtu import AGAIN_S, LEAST, TRIES, PathMtu


def search(path: PathMtu, carries: int, now: float = 0.0) -> int:
    """How many probes it took until nothing is asked any more."""
    for number in range(100):
        size = path.next_size(now)
        if size is None:
            return number
        assert size <= path.most
        (path.passed if size <= carries else path.lost)(size, now)
    raise AssertionError("no end")


@pytest.mark.parametrize("most", [1280, 1500, 9000, 65_535])
def test_a_way_that_carries_all_takes_one_probe(most: int) -> None:
    path = PathMtu(most)
    assert (search(path, most), path.found) == (1, most)


@pytest.mark.parametrize("carries", [LEAST, 1279, 1280, 1400, 1404, 1492, 1499])
def test_the_exact_size_is_found(carries: int) -> None:
    path = PathMtu(1500)
    assert search(path, carries) < 2 + 11 * TRIES
    assert path.found == carries


def test_a_lost_packet_alone_says_nothing() -> None:
    path = PathMtu(1500)
    for _ in range(TRIES - 1):
        path.lost(path.next_size(0.0) or 0, 0.0)
    path.passed(path.next_size(0.0) or 0, 0.0)
    assert path.found == 1500


def test_it_asks_again_after_a_while_and_says_the_old_until_it_knows_better() -> None:
    path = PathMtu(1500)
    search(path, 1500)
    assert path.next_size(AGAIN_S - 1) is None
    for _ in range(TRIES):
        path.lost(path.next_size(AGAIN_S) or 0, AGAIN_S)
    assert path.found == 1500
    search(path, 1400, AGAIN_S)
    assert path.found == 1400


def test_another_underlay_is_another_search() -> None:
    path = PathMtu(1500)
    search(path, 1500)
    path.follow(9000)
    assert (path.found, path.next_size(0.0)) == (None, 9000)
    path.follow(9000)
    search(path, 9000)
    assert path.found == 9000


def test_it_asks_at_once_where_there_is_news() -> None:
    path = PathMtu(1500)
    search(path, 1500)
    assert path.next_size(0.0) is None
    path.again()
    assert search(path, 1400) > 1
    assert path.found == 1400
