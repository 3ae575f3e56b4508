"""The machine against a model of etcd: a dictionary with a history, that can be cut off, compacted and replaced."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.daemon.watch import DELETE, Changes, ListFrom, WatchFrom, WatchMachine

PREFIX, END = b"p/", b"p0"


@dataclass
class KV:
    key: bytes
    value: bytes
    mod_revision: int


@dataclass
class Event:
    type: int
    kv: KV


@dataclass
class ModelEtcd:
    """One etcd: content, history, and up to where the history is compacted."""

    cluster_id: int
    revision: int = 1
    compacted: int = 0
    content: dict[bytes, KV] = field(default_factory=dict)
    history: list[Event] = field(default_factory=list)

    def put(self, key: bytes, value: bytes) -> None:
        self.revision += 1
        self.content[key] = KV(key, value, self.revision)
        self.history.append(Event(0, self.content[key]))

    def delete(self, key: bytes) -> None:
        if self.content.pop(key, None):
            self.revision += 1
            self.history.append(Event(DELETE, KV(key, b"", self.revision)))

    def at(self, revision: int) -> dict[bytes, KV]:
        content: dict[bytes, KV] = {}
        for event in self.history:
            if event.kv.mod_revision <= revision:
                content.pop(event.kv.key, None)
                if event.type != DELETE:
                    content[event.kv.key] = event.kv
        return content


class Mirror:
    """What somebody knows who takes over every change."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}

    def take(self, changes: Changes) -> None:
        assert not changes.puts.keys() & changes.deletes
        self.content.update(changes.puts)
        for name in changes.deletes:
            del self.content[name]  # a name that was never given out must not be deleted


class Reader:
    """Drives a machine as connection.py does, one answer at a time."""

    def __init__(self) -> None:
        self.machine = WatchMachine(PREFIX, END)
        self.mirror = Mirror()
        self.ask: ListFrom | WatchFrom | None = None

    def connect(self) -> None:
        self.ask = self.machine.start()

    def cut(self) -> None:
        self.ask = None

    def step(self, etcd: ModelEtcd, size: int) -> None:
        if self.ask is None:
            self.connect()
        elif isinstance(self.ask, ListFrom):
            self._page(etcd, self.ask, size)
        else:
            self._events(etcd, self.ask, size)

    def _page(self, etcd: ModelEtcd, ask: ListFrom, size: int) -> None:
        if ask.revision and (ask.revision < etcd.compacted or ask.revision > etcd.revision):
            self.ask = self.machine.start()
            return
        content = etcd.at(ask.revision or etcd.revision)
        keys = sorted(key for key in content if ask.start <= key < ask.end)
        page = [content[key] for key in keys[:size]]
        changes, self.ask = self.machine.page(page, etcd.revision, len(keys) > size, history=etcd.cluster_id)
        self.mirror.take(changes)

    def _events(self, etcd: ModelEtcd, ask: WatchFrom, size: int, *, torn: bool = False) -> None:
        start = max(ask.revision, self.machine.revision + 1)
        if start <= etcd.compacted:
            self.ask = self.machine.start()
            return
        events = [event for event in etcd.history if event.kv.mod_revision >= start][:size]
        half = size // 2  # a long answer is taken in parts, of which the last one may not come
        self.mirror.take(self.machine.events(events[:half], etcd.revision, more=True))
        if not torn:
            self.mirror.take(self.machine.events(events[half:], etcd.revision))

    def tear(self, etcd: ModelEtcd, size: int) -> None:
        """The connection is lost with the next answer half taken."""
        if isinstance(self.ask, WatchFrom):
            self._events(etcd, self.ask, size, torn=True)
        self.cut()

    def finish(self, etcd: ModelEtcd) -> None:
        for _ in range(200):
            self.step(etcd, 3)
            if isinstance(self.ask, WatchFrom) and self.machine.revision >= etcd.revision:
                return
        raise AssertionError("did not settle")


KEYS = st.sampled_from([b"p/a", b"p/b", b"p/c", b"p/d", b"p/a/b"])
STEP = st.one_of(
    st.tuples(st.just("put"), KEYS, st.binary(max_size=2)),
    st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("read"), st.integers(1, 4)),
    st.tuples(st.just("cut")),
    st.tuples(st.just("tear"), st.integers(2, 6)),
    st.tuples(st.just("compact")),
    st.tuples(st.just("another")),
)


@given(st.lists(STEP, max_size=60))
@settings(max_examples=200)
def test_it_ends_as_etcd_whatever_happens_on_the_way(steps: list[tuple[str, bytes, bytes]]) -> None:
    etcd, reader = ModelEtcd(1), Reader()
    for name, *arguments in steps:
        match name:
            case "put":
                etcd.put(*arguments)
            case "delete":
                etcd.delete(arguments[0])
            case "read":
                reader.step(etcd, int(arguments[0]))
            case "cut":
                reader.cut()
            case "tear":
                reader.tear(etcd, int(arguments[0]))
            case "compact":
                etcd.compacted = etcd.revision
            case "another":  # behind the same name; a stream to the old one cannot go on
                etcd = ModelEtcd(etcd.cluster_id + 1)
                reader.cut()
    reader.finish(etcd)
    assert reader.mirror.content == {kv.key[2:].decode(): kv.value for kv in etcd.content.values()}
    assert reader.machine.synced
    assert len(reader.machine) == len(etcd.content)


@pytest.fixture
def machine() -> WatchMachine:
    made = WatchMachine(PREFIX, END)
    made.start()
    made.page([KV(b"p/a", b"1", 5), KV(b"p/b", b"1", 6)], 7, False, history=1)
    return made


def test_the_first_question_is_the_newest_list_and_then_the_watch_after_it() -> None:
    machine = WatchMachine(PREFIX, END)
    assert machine.start() == ListFrom(PREFIX, END, 0)
    changes, ask = machine.page([KV(b"p/a", b"1", 5)], 7, True, history=1)
    assert ask == ListFrom(b"p/a\0", END, 7)
    assert not machine.synced
    changes, ask = machine.page([KV(b"p/b", b"1", 6)], 9, False, history=1)
    assert ask == WatchFrom(PREFIX, END, 8)
    assert machine.synced
    assert changes.puts == {"b": b"1"}


def test_a_cut_deletes_nothing_and_the_next_list_only_what_is_gone(machine: WatchMachine) -> None:
    machine.start()
    changes, _ = machine.page([KV(b"p/b", b"1", 6)], 9, False, history=1)
    assert changes == Changes({}, {"a"})


def test_what_is_unchanged_is_not_given_out_again_unless_another_etcd_answers(machine: WatchMachine) -> None:
    machine.start()
    changes, _ = machine.page([KV(b"p/a", b"2", 5), KV(b"p/b", b"1", 6)], 9, False, history=2)
    assert changes.puts == {"a": b"2", "b": b"1"}


def test_an_etcd_that_went_back_in_time_is_another_one(machine: WatchMachine) -> None:
    machine.start()
    changes, ask = machine.page([KV(b"p/a", b"9", 2)], 3, False, history=1)
    assert changes == Changes({"a": b"9"}, {"b"})
    assert machine.events([Event(0, KV(b"p/c", b"1", 4))], 4).puts == {"c": b"1"}
    assert ask == WatchFrom(PREFIX, END, 4)


def test_who_doubts_in_the_middle_of_a_list_hears_all_of_the_next_one(machine: WatchMachine) -> None:
    machine.start()
    machine.page([KV(b"p/a", b"1", 5)], 9, True, history=1)
    machine.doubt()
    machine.page([KV(b"p/b", b"1", 6)], 9, False, history=1)
    machine.start()
    changes, _ = machine.page([KV(b"p/a", b"1", 5), KV(b"p/b", b"1", 6)], 9, False, history=1)
    assert changes.puts == {"a": b"1", "b": b"1"}
    machine.start()
    assert not machine.page([KV(b"p/a", b"1", 5), KV(b"p/b", b"1", 6)], 9, False, history=1)[0]


def test_an_event_that_was_heard_already_changes_nothing(machine: WatchMachine) -> None:
    old = Event(DELETE, KV(b"p/a", b"", 7))
    assert not machine.events([old], 9)


def test_of_several_events_of_a_name_the_last_one_counts(machine: WatchMachine) -> None:
    events = [Event(DELETE, KV(b"p/a", b"", 8)), Event(0, KV(b"p/a", b"2", 9)), Event(DELETE, KV(b"p/b", b"", 10))]
    assert machine.events(events, 10) == Changes({"a": b"2"}, {"b"})
    assert machine.revision == 10


def test_a_progress_report_moves_the_revision(machine: WatchMachine) -> None:
    assert not machine.events([], 42)
    assert machine.revision == 42


def test_keys_that_were_not_asked_for_are_ignored(machine: WatchMachine) -> None:
    assert not machine.events([Event(0, KV(b"q/a", b"1", 8))], 8)


def test_records_that_moved_to_another_range_stay_known(machine: WatchMachine) -> None:
    machine.move(b"cache/", b"cache0")
    assert machine.start() == ListFrom(b"cache/", b"cache0", 0)
    changes, _ = machine.page([KV(b"cache/a", b"1", 5)], 9, False, history=1)
    assert changes == Changes({"a": b"1"}, {"b"})


def test_an_empty_page_ends_the_list_whatever_it_says(machine: WatchMachine) -> None:
    machine.start()
    _, ask = machine.page([], 9, True, history=1)
    assert isinstance(ask, WatchFrom)
