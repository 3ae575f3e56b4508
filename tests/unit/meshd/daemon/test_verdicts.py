from datapath.layout import DropReason
from datapath.policylayout import Event
from datapath.ringbuf import parse_event
from meshd.daemon.verdicts import KEPT, MOST, Verdicts, is_drop


def record(reason: DropReason, port: int = 80, *, source_port: int = 0) -> bytes:
    ports = {"source_port": source_port, "destination_port": port}
    return bytes(Event(reason=reason, family=4, protocol=6, subject=7, peer=8, **ports))


def test_the_last_are_kept_and_what_was_forgotten_is_counted() -> None:
    verdicts = Verdicts()
    verdicts.add(record(DropReason.NONE, 1 + n // 32) for n in range(KEPT + 10))
    assert verdicts.told == KEPT + 10
    events, number, lost = verdicts.since(0)
    assert (sum(told.count for told in events), number, lost) == (KEPT, KEPT + 10, 10)
    assert (events[0].event.port, events[0].count) == (1, 22)
    events, number, lost = verdicts.since(verdicts.told - 2)
    assert ([(told.event.port, told.count) for told in events], number, lost) == ([(129, 2)], verdicts.told, 0)
    assert verdicts.since(verdicts.told) == ([], verdicts.told, 0)
    assert verdicts.since(1 << 62) == ([], verdicts.told, 0)


def test_alike_ones_are_one_whatever_their_source_port() -> None:
    verdicts = Verdicts()
    verdicts.add(record(DropReason.POLICY_CLOSED, 80 + n % 2, source_port=n) for n in range(10))
    verdicts.add([record(DropReason.POLICY_DENIED)])
    events, number, lost = verdicts.since(0)
    assert [(told.number, told.count, told.event.port) for told in events] == [(9, 5, 80), (10, 5, 81), (11, 1, 80)]
    assert (events[0].event.source_port, number, lost) == (8, 11, 0)


def test_an_answer_is_bounded_and_the_next_goes_on_where_it_ended() -> None:
    verdicts = Verdicts()
    verdicts.add(record(DropReason.POLICY_CLOSED, port) for port in range(1, 2 * MOST + 2))
    seen, answers, after = [], 0, 0
    while after < verdicts.told:
        events, after, lost = verdicts.since(after)
        assert len(events) <= MOST
        assert lost == 0
        seen += [told.event.port for told in events]
        answers += 1
    assert seen == list(range(1, 2 * MOST + 2))
    assert answers == 3


def test_what_counts_as_a_drop() -> None:
    reasons = (DropReason.POLICY_DENIED, DropReason.POLICY_CLOSED, DropReason.POLICY_AUDITED, DropReason.NONE)
    assert [is_drop(parse_event(record(reason))) for reason in reasons] == [True, True, False, False]


def test_a_reason_of_a_newer_program_is_no_reason_to_fail() -> None:
    assert parse_event(bytes(Event(reason=999, family=6))).reason is DropReason.INVALID
