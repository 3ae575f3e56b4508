"""How long a remote waits between its tries. The rest of it is tested with real clusters (tests/integration)."""

import pytest
from tenacity import AsyncRetrying, Future, RetryCallState

from meshd.daemon.link import Link, LinkState, PeerRejected, PeerUnavailable
from meshd.daemon.remote import BACKOFF_MAX_S, BACKOFF_START_S, REJECTED_MAX_S, backoff_s


def state(attempt: int, error: Exception) -> RetryCallState:
    made = RetryCallState(AsyncRetrying(), None, (), {})
    made.attempt_number = attempt
    made.outcome = Future.construct(attempt, error, has_exception=True)
    return made


def longest(attempt: int, error: Exception) -> float:
    return max(backoff_s(state(attempt, error)) for _ in range(300))


def test_waits_grow_are_capped_and_jittered() -> None:
    away = PeerUnavailable("away")
    assert longest(1, away) <= BACKOFF_START_S
    assert BACKOFF_START_S < longest(4, away) <= BACKOFF_START_S * 8
    assert BACKOFF_MAX_S / 2 < longest(50, away) <= BACKOFF_MAX_S
    assert min(backoff_s(state(50, away)) for _ in range(300)) < BACKOFF_MAX_S / 2


@pytest.mark.parametrize(("certain", "most"), [(True, REJECTED_MAX_S), (False, BACKOFF_MAX_S)])
def test_a_certain_rejection_waits_longer(certain: bool, most: float) -> None:
    assert most / 2 < longest(50, PeerRejected("no", certain=certain)) <= most


def test_a_links_age_is_that_of_its_state_not_of_the_reason() -> None:
    link = Link(since=1.0)
    assert link.become(LinkState.DISCONNECTED, now=2.0, reason="refused")
    assert link.become(LinkState.DISCONNECTED, now=3.0, reason="reset")
    assert not link.become(LinkState.DISCONNECTED, now=4.0, reason="reset")
    assert (link.since, link.reason) == (2.0, "reset")
