"""Recorded histories: what readers hear while things break must be etcd's own history.

Writers put, delete, commit transactions and let leases end, and keep etcd's answers as the truth. Readers list, watch,
ask how far they have heard, and resume as etcd's client does; one of them reads slowly. Each stretch that a reader has
heard must be Ordered, Unique, Atomic and Reliable: exactly the truth's events of those revisions; what it was told of
its progress is a point to resume at (Bookmarkable); and in the end all have the same keys as etcd.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio

from tests.support.etcd import Etcd
from tests.support.proxy import Proxy, Reader, StreamEnded, WatchCall

STATE, STATE_END = b"cilium/state/", b"cilium/state0"
MARK = b"cilium/state/~mark"
_DEADLINE_S = 60.0

Fault = Callable[[random.Random], None]
Truth = dict[int, set[tuple[bytes, bytes | None]]]  # revision → keys with their new values, None: deleted


@dataclass
class Stretch:
    """What one reader heard without listing anew: every event of the revisions after `after`, up to `heard`."""

    after: int
    heard: int
    events: list[tuple[int, bytes, bytes | None]] = field(default_factory=list)


@dataclass
class Follower:
    """A reader that lists, watches, resumes at any of the proxies, and lists anew when told to."""

    proxies: list[Proxy]
    certificate: Path
    chance: random.Random
    reads_after_s: float = 0.0
    keys: dict[bytes, bytes] = field(default_factory=dict)
    stretches: list[Stretch] = field(default_factory=list)
    cluster_ids: set[int] = field(default_factory=set)
    revision: int = 0
    bookmarks: int = 0
    done: bool = False
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self) -> None:
        while not self.done:
            proxy = self.chance.choice(self.proxies)
            try:
                async with proxy.channel(self.certificate) as channel:
                    await self._follow_at(Reader(channel, patient=False))
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError, StreamEnded):  # the stream or the proxy has gone
                await asyncio.sleep(0.02)

    async def _follow_at(self, reading: Reader) -> None:
        if not self.revision:
            await self._list(reading)
        async with reading.watch(STATE, STATE_END, start_revision=self.revision + 1) as watch:
            while not self.done and await self._hear(watch):
                await asyncio.sleep(self.reads_after_s)
                if self.chance.random() < 0.1:
                    await watch.ask_progress()
                if self.chance.random() < 0.02:
                    return  # goes elsewhere, as if its connection broke

    async def _list(self, reading: Reader) -> None:
        keys: dict[bytes, bytes] = {}
        key, more, pinned = STATE, True, 0
        while more:
            page = await reading.range(key, STATE_END, limit=3, revision=pinned)
            pinned = pinned or page.header.revision
            keys |= {kv.key: kv.value for kv in page.kvs}
            key, more = (page.kvs[-1].key + b"\0" if page.more else key), page.more
        self.cluster_ids.add(page.header.cluster_id)
        self.keys, self.revision = keys, pinned
        self.stretches.append(Stretch(pinned, pinned))
        self.done = MARK in keys
        self.moved.set()

    async def _hear(self, watch: WatchCall) -> bool:
        answer = await watch.read()
        if answer.canceled:
            self.revision = 0
            return False
        for event in answer.events:
            value = None if event.type == event.DELETE else event.kv.value
            self.stretches[-1].events.append((event.kv.mod_revision, event.kv.key, value))
            if value is None:
                self.keys.pop(event.kv.key, None)
            else:
                self.keys[event.kv.key] = value
            self.done = self.done or event.kv.key == MARK
        if answer.events:
            self._reach(answer.events[-1].kv.mod_revision)
            assert answer.header.revision >= self.revision
        elif answer.watch_id < 0:  # how far it has heard: nothing up to there may come later
            self._reach(answer.header.revision)
            self.bookmarks += 1
        return True

    def _reach(self, revision: int) -> None:
        self.revision = self.stretches[-1].heard = max(self.revision, revision)
        self.moved.set()


def check_stretch(stretch: Stretch, truth: Truth) -> None:
    heard = [revision for revision, _, _ in stretch.events]
    assert heard == sorted(heard), "not ordered"
    assert len(set(stretch.events)) == len(stretch.events), "not unique"
    by_revision: Truth = {}
    for revision, key, value in stretch.events:
        by_revision.setdefault(revision, set()).add((key, value))
    expected = {at: changes for at, changes in truth.items() if stretch.after < at <= stretch.heard}
    wrong = {at for at in by_revision | expected if by_revision.get(at) != expected.get(at)}
    differences = [(at, by_revision.get(at), expected.get(at)) for at in sorted(wrong)]
    assert not differences, f"not the truth, after {stretch.after}: revision, heard, written: {differences[:20]}"


class Writer:
    """Puts, deletes, transactions, keys with leases that end, in keys of its own; `truth` has what etcd made of it."""

    def __init__(self, chance: random.Random, etcd: Etcd, truth: Truth, name: str) -> None:
        self.truth = truth
        self._chance = chance
        self._etcd = etcd
        self._keys = [b"cilium/state/%s%d" % (name.encode(), number) for number in range(6)]
        self._leased: dict[bytes, int] = {}  # keys with a lease

    def write(self, number: int) -> None:
        """One commit, or none if there was nothing to delete."""
        chance, value = self._chance, b"%d" % number
        keys = [chance.choice(self._keys) for _ in range(3)]
        action = chance.random()
        if action < 0.45:
            self._put(keys[0], value)
        elif action < 0.65:
            revision = self._etcd.put_all({key.decode(): value.decode() for key in keys})
            self._note(revision, {(key, value) for key in keys})
        elif action < 0.8:
            lease = next(iter(self._leased.values()), 0) if chance.random() < 0.5 else 0
            self._put(keys[0], value, lease or self._etcd.grant_lease(600))
        elif action < 0.9 and self._leased:
            lease = chance.choice(list(self._leased.values()))
            gone = {key for key, held in self._leased.items() if held == lease}
            self._note(self._etcd.revoke_lease(lease), {(key, None) for key in gone})
        else:
            existed = self._etcd.get(keys[0]) is not None
            revision = self._etcd.delete(keys[0])
            if existed:
                self._note(revision, {(keys[0], None)})

    def _put(self, key: bytes, value: bytes, lease: int = 0) -> None:
        self._note(self._etcd.put(key, value, lease=lease), {(key, value)})
        if lease:
            self._leased[key] = lease

    def _note(self, revision: int, changes: set[tuple[bytes, bytes | None]]) -> None:
        self.truth[revision] = changes
        for key, _ in changes:
            self._leased.pop(key, None)


async def heard(follower: Follower, revision: int) -> None:
    """Waits until this one has come so far: the history is written at the pace at which it is read."""
    while follower.revision < revision:
        follower.moved.clear()
        await follower.moved.wait()


async def run_history(
    chance: random.Random,
    etcd: Etcd,
    proxies: list[Proxy],
    writers: Sequence[Writer],
    faults: Sequence[Fault],
    *,
    steps: int,
    fault_every: int = 50,
) -> list[Follower]:
    """All write `steps` times, with a fault in between now and then; returns the readers, who have heard everything."""
    certificate, truth = proxies[0].certificate("remote-c2"), writers[0].truth
    quick = [Follower(proxies, certificate, random.Random(chance.random())) for _ in range(3)]
    slow = Follower(proxies, certificate, random.Random(chance.random()), reads_after_s=0.03)
    async with asyncio.timeout(_DEADLINE_S), asyncio.TaskGroup() as group:
        for follower in (*quick, slow):
            group.create_task(follower.follow())
        for number in range(steps):
            if chance.random() < 1 / fault_every:
                await asyncio.to_thread(chance.choice(faults), chance)
            else:
                await asyncio.gather(*(asyncio.to_thread(writer.write, number) for writer in writers))
            if number % 10 == 0 and truth:
                await heard(chance.choice(quick), max(truth))
        truth[etcd.put(MARK, b"")] = {(MARK, b"")}
    return [*quick, slow]


def check_history(etcd: Etcd, truth: Truth, followers: list[Follower]) -> None:
    """Raises AssertionError with what is not etcd's history."""
    final = {key.encode(): value for key, value in etcd.keys(STATE.decode()).items()}
    for follower in followers:
        assert follower.keys == final
        assert len(follower.cluster_ids) == 1
        for stretch in follower.stretches:
            check_stretch(stretch, truth)
    assert sum(follower.bookmarks for follower in followers) > 0
    assert any(len(stretch.events) > 20 for follower in followers for stretch in follower.stretches)
