import asyncio
from dataclasses import dataclass, field

import pytest

from etcdproxy.batches import BATCH_BYTES, Batch, Selection
from etcdproxy.history import Compacted, History
from etcdproxy.hub import Hub, Watcher
from etcdproxy.policy import Interval
from etcdproxy.store import Store
from tests.support.entries import entry

STORE = Store(1, 2, 3)
ALL = Selection(Interval(b"", None))


@dataclass
class Listening:
    """Counts how often the hub turned to it."""

    woken: list[int] = field(default_factory=list)
    lost: int = 0
    takes: bool = False
    pushed: list[tuple[int, list[bytes]]] = field(default_factory=list)

    def push(self, watcher: Watcher, batch: Batch) -> bool:
        if self.takes:
            self.pushed.append((watcher.watch_id, batch.parts))
        return self.takes

    def wake(self, watcher: Watcher) -> None:
        self.woken.append(watcher.watch_id)

    def lose(self) -> None:
        self.lost += 1


@pytest.fixture
def hub() -> Hub:
    hub = Hub()
    hub.replace(History({}, 10, max_events=8), STORE, continues=False)
    return hub


def apply(hub: Hub, revision: int) -> None:
    hub.apply([(revision, [(b"k", entry(b"k", b"v", revision))])])


def test_watchers_of_one_selection_share_the_encoded_events(hub: Hub) -> None:
    listening = Listening()
    watchers = [Watcher(listening, number, ALL, 0) for number in range(3)]
    for watcher in watchers:
        hub.add(watcher)
    apply(hub, 11)
    first, second, third = [hub.fetch(watcher).parts[0] for watcher in watchers]
    assert first is second is third
    assert listening.woken == [0, 1, 2]


def test_a_watcher_is_woken_once_until_it_has_fetched(hub: Hub) -> None:
    listening = Listening()
    watcher = Watcher(listening, 0, ALL, 0)
    hub.add(watcher)
    apply(hub, 11)
    apply(hub, 12)
    assert listening.woken == [0]
    assert hub.fetch(watcher).revision == 12
    assert hub.fetch(watcher).parts == []
    apply(hub, 13)
    assert listening.woken == [0, 0]


def test_who_lacks_nothing_else_is_pushed_the_others_are_woken(hub: Hub) -> None:
    taking, full = Listening(takes=True), Listening()
    late, early = Watcher(taking, 2, ALL, 13), Watcher(taking, 3, ALL, 12)
    for watcher in (Watcher(taking, 0, ALL, 0), Watcher(full, 1, ALL, 0), late, early):
        hub.add(watcher)
    apply(hub, 11)
    assert [watch_id for watch_id, _ in taking.pushed] == [0]
    assert full.woken == [1]
    put = [(b"k", entry(b"k", b"v", 12))]
    hub.apply([(12, put), (13, put)])
    assert [watch_id for watch_id, _ in taking.pushed] == [0, 0, 3]
    assert taking.pushed[1][1] is taking.pushed[2][1]  # both commits at once, encoded once
    assert full.woken == [1]  # it has not fetched yet
    assert taking.woken == [2]  # it wants the second of the two only
    assert hub.fetch(late).revision == 13
    assert hub.fetch(early).parts == []


def test_more_than_one_answer_holds_or_the_history_keeps_is_not_pushed(hub: Hub) -> None:
    listening = Listening(takes=True)
    watcher = Watcher(listening, 0, ALL, 0)
    hub.add(watcher)
    hub.apply([(revision, [(b"k", entry(b"k", b"v" * BATCH_BYTES, revision))]) for revision in (11, 12)])
    assert (listening.pushed, listening.woken) == ([], [0])
    while hub.fetch(watcher).parts:
        pass
    hub.apply([(revision, [(b"k", entry(b"k", b"v", revision))]) for revision in range(13, 40)])
    assert (listening.pushed, listening.woken) == ([], [0, 0])
    with pytest.raises(Compacted):
        hub.fetch(watcher)


def test_who_is_behind_the_history_is_compacted(hub: Hub) -> None:
    watcher = Watcher(Listening(), 0, ALL, 0)
    hub.add(watcher)
    for revision in range(11, 40):
        apply(hub, revision)
    with pytest.raises(Compacted):
        hub.fetch(watcher)


def test_another_store_loses_every_stream_and_changes_the_header(hub: Hub) -> None:
    listening = Listening()
    hub.add(Watcher(listening, 0, ALL, 0))
    before = hub.header()
    hub.replace(History({}, 10), Store(9, 2, 3), continues=True)
    assert listening.lost == 1
    assert hub.header() != before


async def test_reach_waits_for_a_revision(hub: Hub) -> None:
    assert await hub.reach(10, 0)
    waiting = [asyncio.ensure_future(hub.reach(revision, 20)) for revision in (13, 11, 12)]
    await asyncio.sleep(0)
    apply(hub, 11)
    assert await waiting[1]
    assert not waiting[0].done()
    apply(hub, 15)
    assert await waiting[0]
    assert await waiting[2]
    assert not await hub.reach(99, 0.001)


async def test_who_waits_no_more_for_a_revision_that_never_comes_is_forgotten(hub: Hub) -> None:
    waiting = [asyncio.ensure_future(hub.reach(1 << 62, 20)) for _ in range(1000)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert len(hub._waiters) <= 1
    assert await asyncio.gather(*(hub.reach(99, 0.001) for _ in range(1000))) == [False] * 1000
    assert len(hub._waiters) <= 1
