"""Recorded histories: what readers hear while things break must be etcd's own history.

A writer puts, deletes and commits transactions, and keeps etcd's answers as the truth. Readers list, watch and resume
as etcd's client does. Each stretch that a reader has heard must be Ordered, Unique, Atomic and Reliable: exactly the
truth's events of those revisions; and in the end all have the same keys as etcd.
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
    keys: dict[bytes, bytes] = field(default_factory=dict)
    stretches: list[Stretch] = field(default_factory=list)
    cluster_ids: set[int] = field(default_factory=set)
    revision: int = 0
    done: bool = False
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self) -> None:
        while not self.done:
            proxy = self.chance.choice(self.proxies)
            try:
                async with proxy.channel(self.certificate) as channel:
                    await self._follow_at(Reader(channel, patient=False))
            except (grpc.aio.AioRpcError, StreamEnded):
                await asyncio.sleep(0.02)

    async def _follow_at(self, reading: Reader) -> None:
        if not self.revision:
            await self._list(reading)
        async with reading.watch(STATE, STATE_END, start_revision=self.revision + 1) as watch:
            while not self.done and await self._hear(watch):
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
            self.revision = self.stretches[-1].heard = answer.events[-1].kv.mod_revision
            assert answer.header.revision >= self.revision
            self.moved.set()
        return True


def check_stretch(stretch: Stretch, truth: Truth) -> None:
    heard = [revision for revision, _, _ in stretch.events]
    assert heard == sorted(heard), "not ordered"
    assert len(set(stretch.events)) == len(stretch.events), "not unique"
    by_revision: Truth = {}
    for revision, key, value in stretch.events:
        by_revision.setdefault(revision, set()).add((key, value))
    expected = {at: changes for at, changes in truth.items() if stretch.after < at <= stretch.heard}
    assert by_revision == expected, "not the truth: an event is missing, split off or invented"


def write_once(chance: random.Random, etcd: Etcd, truth: Truth, number: int) -> None:
    keys = [b"cilium/state/%d" % chance.randrange(8) for _ in range(3)]
    value = b"%d" % number
    action = chance.random()
    if action < 0.55:
        truth[etcd.put(keys[0], value)] = {(keys[0], value)}
    elif action < 0.8:
        revision = etcd.put_all({key.decode(): value.decode() for key in keys})
        truth[revision] = {(key, value) for key in keys}
    else:
        existed = {key for key in keys[:1] if etcd.get(key) is not None}
        revision = etcd.delete(keys[0])
        if existed:
            truth[revision] = {(key, None) for key in existed}


async def heard(follower: Follower, revision: int) -> None:
    """Waits until this one has come so far: the history is written at the pace at which it is read."""
    while follower.revision < revision:
        follower.moved.clear()
        await follower.moved.wait()


async def run_history(
    chance: random.Random,
    etcd: Etcd,
    proxies: list[Proxy],
    truth: Truth,
    faults: Sequence[Fault],
    *,
    steps: int,
    fault_every: int = 50,
) -> list[Follower]:
    """Writes `steps` times, with a fault in between now and then; returns the readers, who have heard everything."""
    certificate = proxies[0].certificate("remote-c2")
    followers = [Follower(proxies, certificate, random.Random(chance.random())) for _ in range(4)]
    async with asyncio.timeout(_DEADLINE_S), asyncio.TaskGroup() as group:
        for follower in followers:
            group.create_task(follower.follow())
        for number in range(steps):
            if chance.random() < 1 / fault_every:
                await asyncio.to_thread(chance.choice(faults), chance)
            else:
                await asyncio.to_thread(write_once, chance, etcd, truth, number)
            if number % 10 == 0 and truth:
                await heard(chance.choice(followers), max(truth))
        truth[etcd.put(MARK, b"")] = {(MARK, b"")}
    return followers


def check_history(etcd: Etcd, truth: Truth, followers: list[Follower]) -> None:
    """Raises AssertionError with what is not etcd's history."""
    final = {key.encode(): value for key, value in etcd.keys(STATE.decode()).items()}
    for follower in followers:
        assert follower.keys == final
        assert len(follower.cluster_ids) == 1
        for stretch in follower.stretches:
            check_stretch(stretch, truth)
    assert any(len(stretch.events) > 20 for follower in followers for stretch in follower.stretches)
