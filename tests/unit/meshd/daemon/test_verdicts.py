from datapath.layout import DropReason
from datapath.policylayout import Event
from datapath.ringbuf import parse_event
from meshd.daemon.verdicts import KEPT, Verdicts, is_drop


def record(reason: DropReason, port: int = 80) -> bytes:
    return bytes(Event(reason=reason, family=4, protocol=6, destination_port=port, subject=7, peer=8))


def test_the_last_are_kept_and_what_was_forgotten_is_counted() -> None:
    verdicts = Verdicts()
    verdicts.add(record(DropReason.NONE, port) for port in range(1, KEPT + 11))
    assert verdicts.told == KEPT + 10
    events, lost = verdicts.since(0)
    assert (len(events), lost) == (KEPT, 10)
    assert events[0][1].port == 11
    events, lost = verdicts.since(verdicts.told - 2)
    assert ([event.port for _, event in events], lost) == ([KEPT + 9, KEPT + 10], 0)
    assert verdicts.since(1 << 62) == ([], 0)
    assert verdicts.by_reason == {DropReason.NONE: KEPT + 10}


def test_what_counts_as_a_drop() -> None:
    reasons = (DropReason.POLICY_DENIED, DropReason.POLICY_CLOSED, DropReason.POLICY_AUDITED, DropReason.NONE)
    assert [is_drop(parse_event(record(reason))) for reason in reasons] == [True, True, False, False]


def test_a_reason_of_a_newer_program_is_no_reason_to_fail() -> None:
    assert parse_event(bytes(Event(reason=999, family=6))).reason is DropReason.INVALID
