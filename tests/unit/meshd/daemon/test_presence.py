"""When a cluster that is not heard any more is withdrawn, and that answers that come and go do not make it flap."""

import pytest

from meshd.daemon.allowance import Allowance
from meshd.daemon.presence import Presence, PresenceState

ALLOWANCE = Allowance(stale_after_s=60.0, max_stale_s=600.0)


def after(age_s: float, *, answers: bool | None) -> PresenceState:
    presence = Presence(lost_at=100.0)
    presence.judge(100.0 + age_s, ALLOWANCE, answers=answers)
    return presence.state


@pytest.mark.parametrize(
    ("age_s", "answers", "state"),
    [
        (59.0, False, PresenceState.STALE),
        (60.0, False, PresenceState.WITHDRAWN),
        (599.0, True, PresenceState.STALE),
        (599.0, None, PresenceState.STALE),
        (600.0, True, PresenceState.WITHDRAWN),
        (600.0, None, PresenceState.WITHDRAWN),
    ],
)
def test_both_must_fail_before_it_is_withdrawn(age_s: float, answers: bool | None, state: PresenceState) -> None:
    assert after(age_s, answers=answers) is state


def test_only_the_control_link_leads_back() -> None:
    presence = Presence(lost_at=0.0)
    presence.judge(60.0, ALLOWANCE, answers=False)
    assert not presence.judge(61.0, ALLOWANCE, answers=True)
    assert presence.state is PresenceState.WITHDRAWN
    presence.find()
    assert presence.judge(62.0, ALLOWANCE, answers=False)
    assert (presence.state, presence.age_s(62.0)) == (PresenceState.FRESH, None)


def test_the_age_counts_from_the_first_loss() -> None:
    presence = Presence(lost_at=None)
    presence.lose(10.0)
    presence.lose(20.0)
    assert presence.age_s(25.0) == 15.0


def test_withdrawals_are_counted_by_their_cause() -> None:
    presence = Presence(lost_at=0.0)
    for now, answers in ((60.0, False), (700.0, True)):
        presence.judge(now, ALLOWANCE, answers=answers)
        presence.judge(now + 1, ALLOWANCE, answers=answers)
        presence.find()
        presence.judge(now + 2, ALLOWANCE, answers=answers)
        presence.lose(now + 3 - 600)
    assert presence.withdrawals == {"nodes-silent": 1, "max-stale": 1}
