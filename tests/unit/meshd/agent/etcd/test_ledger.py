from hypothesis import given
from hypothesis import strategies as st

from meshd.agent.etcd.ledger import MAX_TRANSACTION, ORDER, Ledger, Write, digest_of
from wire import keys
from wire.keys import Kind


def key(kind: Kind, name: str) -> str:
    return keys.record(kind, "c1", name)


IP, IDENTITY, NODE = key(Kind.IP, "10.0.0.1"), key(Kind.IDENTITY, "70000"), key(Kind.NODE, "n")


def write_all(ledger: Ledger) -> list[Write]:
    done: list[Write] = []
    while writes := ledger.take(10):
        for write in writes:
            ledger.written(write)
        done += writes
    return done


def test_a_fresh_etcd_gets_everything_identities_before_ips() -> None:
    ledger = Ledger("c1")
    ledger.want({IP: b"1", NODE: b"n", IDENTITY: b"a"})
    assert write_all(ledger) == [Write(IDENTITY, b"a"), Write(NODE, b"n"), Write(IP, b"1")]
    assert ledger.pending == 0
    assert ledger.count()["ip"] == 1


def test_what_is_held_already_is_not_written() -> None:
    ledger = Ledger("c1")
    ledger.hold({IP: digest_of(b"1"), NODE: digest_of(b"old"), IDENTITY: b""})
    ledger.want({IP: b"1", NODE: b"new", IDENTITY: b"a"})
    assert write_all(ledger) == [Write(IDENTITY, b"a"), Write(NODE, b"new")]


def test_strays_go_only_after_everything_was_said() -> None:
    ledger = Ledger("c1")
    ledger.hold({IP: b"1", IDENTITY: b"a", NODE: b"n"})
    ledger.want({NODE: b"n"})
    assert write_all(ledger) == []
    ledger.complete()
    assert write_all(ledger) == [Write(IP, None), Write(IDENTITY, None)]
    assert ledger.count() == dict.fromkeys(map(str, ORDER), 0) | {"nodes": 1}


def test_what_was_wanted_and_is_no_more_goes_at_once() -> None:
    ledger = Ledger("c1")
    ledger.hold({IP: b"1", IDENTITY: b"a", NODE: b"n"})
    ledger.want({IP: b"1", NODE: None})
    ledger.want({IP: None})
    assert write_all(ledger) == [Write(IP, None)]
    ledger.want({IP: b"2"})
    assert write_all(ledger) == [Write(IP, b"2")]
    ledger.want({IP: None, IDENTITY: None})
    ledger.want({IP: b"2"})
    assert write_all(ledger) == []
    ledger.complete()
    assert write_all(ledger) == [Write(NODE, None), Write(IDENTITY, None)]


def test_a_change_while_a_write_is_under_way_is_written_after_it() -> None:
    ledger = Ledger("c1")
    ledger.complete()
    ledger.want({IP: b"1"})
    (write,) = ledger.take(10)
    ledger.want({IP: None})
    ledger.written(write)
    assert write_all(ledger) == [Write(IP, None)]


def test_going_back_while_a_write_is_under_way_is_written_after_it() -> None:
    ledger = Ledger("c1")
    ledger.hold({IP: b"1"})
    ledger.want({IP: b"2"})
    (write,) = ledger.take(10)
    ledger.want({IP: b"1"})
    ledger.written(write)
    assert write_all(ledger) == [Write(IP, b"1")]


def test_many_keys_go_kind_by_kind() -> None:
    ledger = Ledger("c1")
    ledger.want({key(Kind.IP, str(number)): b"i" for number in range(MAX_TRANSACTION)} | {IDENTITY: b"a"})
    assert ledger.take(1000) == [Write(IDENTITY, b"a")]
    ledger.written(Write(IDENTITY, b"a"))
    assert len(ledger.take(1000)) == MAX_TRANSACTION


def test_after_a_new_list_everything_is_compared_again() -> None:
    ledger = Ledger("c1")
    ledger.want({IP: b"1", NODE: b"n"})
    write_all(ledger)
    ledger.hold({NODE: b"n"})
    assert write_all(ledger) == [Write(IP, b"1")]


NAMES = st.sampled_from([key(kind, name) for kind in ORDER for name in "abc"])
VALUES = st.sampled_from([b"1", b"2"])
Step = tuple[str, dict[str, bytes | None]]
NOTHING: dict[str, bytes | None] = {}
WANT: st.SearchStrategy[Step] = st.tuples(st.just("want"), st.dictionaries(NAMES, st.none() | VALUES, max_size=4))
HOLD: st.SearchStrategy[Step] = st.tuples(st.just("hold"), st.dictionaries(NAMES, VALUES, max_size=6))
WORK: st.SearchStrategy[Step] = st.tuples(st.sampled_from(["take", "written", "complete"]), st.just(NOTHING))


@given(st.lists(WANT | HOLD | WORK, max_size=30))
def test_whatever_happens_etcd_ends_as_desired(history: list[Step]) -> None:
    ledger = Ledger("c1")
    etcd: dict[str, bytes] = {}
    desired: dict[str, bytes] = {}
    under_way: list[Write] = []

    def write() -> None:
        for each in under_way:
            etcd.pop(each.key, None)
            if each.value is not None:
                etcd[each.key] = each.value
            ledger.written(each)
        under_way.clear()

    for step, argument in [*history, ("complete", NOTHING)]:
        if step == "want":
            ledger.want(argument)
            desired = {name: value for name, value in (desired | argument).items() if value is not None}
        elif step == "hold":
            under_way.clear()  # a spell ends: nothing is known of what was under way
            etcd = {name: value for name, value in argument.items() if value is not None}
            ledger.hold({key: digest_of(value) for key, value in etcd.items()})
        elif step == "take" and not under_way:
            under_way += ledger.take(5)
        elif step == "written":
            write()
        else:
            ledger.complete()
    write()
    while writes := ledger.take(5):
        under_way += writes
        write()
    assert etcd == desired
    assert ledger.pending == 0
    assert sum(ledger.count().values()) == len(etcd)
