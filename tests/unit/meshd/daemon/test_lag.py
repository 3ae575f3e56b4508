from meshd.daemon.lag import KEPT, Lags


def test_a_change_takes_from_its_first_news_to_the_end_of_its_last_round() -> None:
    lags = Lags()
    assert lags.of("c2") is None
    lags.hear("c2", 1.0)
    lags.hear("c2", 2.0)
    lags.hear("c3", 2.0)
    lags.settle({"c2"}, 3.0)
    lags.settle(set(), 5.0)
    assert (lags.of("c2"), lags.of("c3")) == ((4.0, 4.0, 1), (1.0, 1.0, 1))


def test_the_last_ones_count_and_the_slowest_shows() -> None:
    lags = Lags()
    for number in range(KEPT + 100):
        lags.hear("c2", 0.0)
        lags.settle(set(), 10.0 if number % 50 == 0 else 1.0)
    assert lags.of("c2") == (1.0, 10.0, KEPT)


def test_nothing_stays_of_who_left() -> None:
    lags = Lags()
    lags.hear("c2", 0.0)
    lags.settle(set(), 1.0)
    lags.hear("c2", 1.0)
    lags.forget("c2")
    lags.settle(set(), 9.0)
    assert lags.of("c2") is None
