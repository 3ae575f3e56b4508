"""Random histories with faults: what readers record must be etcd's own history.

A writer puts, deletes and commits transactions, and keeps etcd's answers as the truth. Readers list, watch and resume
as etcd's client does, while etcd and the proxies are killed, stopped and compacted. Whatever happens, each stretch a
reader has heard must be Ordered, Unique, Atomic and Reliable: exactly the truth's events of those revisions; and in
the end all have the same keys as etcd.
"""

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
import pytest

from tests.support.etcd import Etcd
from tests.support.proxy import Proxy, Reader, StreamEnded, WatchCall

pytestmark = pytest.mark.etcd

STATE, STATE_END = b"cilium/state/", b"cilium/state0"
MARK = b"cilium/state/~mark"
SEEDS = range(int(os.environ.get("MESHD_HISTORY_SEEDS", "3")))
_STEPS = 400
_DEADLINE_S = 60.0

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


def faults(etcd: Etcd, proxies: list[Proxy], truth: Truth) -> list[Callable[[random.Random], None]]:
    def restart_etcd(chance: random.Random) -> None:
        etcd.kill() if chance.random() < 0.5 else etcd.stop()
        etcd.start()

    def restart_proxy(chance: random.Random) -> None:
        proxy = chance.choice(proxies)
        proxy.kill()
        proxy.start()

    def freeze_proxy(chance: random.Random) -> None:
        proxy = chance.choice(proxies)
        os.kill(proxy.pid, signal.SIGSTOP)
        for number in range(20):
            write_once(chance, etcd, truth, -number)
        os.kill(proxy.pid, signal.SIGCONT)

    def compact(chance: random.Random) -> None:
        if truth:
            etcd.compact(max(truth))

    return [restart_etcd, restart_proxy, freeze_proxy, compact]


@pytest.fixture
def proxies(tmp_path: Path, etcd: Etcd) -> Iterator[list[Proxy]]:
    made = [Proxy(tmp_path / "proxy0", etcd.url)]
    made.append(made[0].sibling(tmp_path / "proxy1"))
    try:
        for proxy in made:
            proxy.start()
        yield made
    finally:
        for proxy in made:
            proxy.kill()


async def heard(follower: Follower, revision: int) -> None:
    """Waits until this one has come so far: the history is written at the pace at which it is read."""
    while follower.revision < revision:
        follower.moved.clear()
        await follower.moved.wait()


async def run_history(chance: random.Random, etcd: Etcd, proxies: list[Proxy]) -> tuple[Truth, list[Follower]]:
    truth: Truth = {}
    certificate = proxies[0].certificate("remote-c2")
    followers = [Follower(proxies, certificate, random.Random(chance.random())) for _ in range(4)]
    possible = faults(etcd, proxies, truth)
    async with asyncio.timeout(_DEADLINE_S), asyncio.TaskGroup() as group:
        for follower in followers:
            group.create_task(follower.follow())
        for number in range(_STEPS):
            step: Awaitable[None]
            if chance.random() < 0.02:
                step = asyncio.to_thread(chance.choice(possible), chance)
            else:
                step = asyncio.to_thread(write_once, chance, etcd, truth, number)
            await step
            if number % 10 == 0 and truth:
                await heard(chance.choice(followers), max(truth))
        truth[etcd.put(MARK, b"")] = {(MARK, b"")}
    return truth, followers


@pytest.mark.parametrize("seed", SEEDS)
async def test_recorded_histories_are_etcds(seed: int, etcd: Etcd, proxies: list[Proxy]) -> None:
    truth, followers = await run_history(random.Random(seed), etcd, proxies)
    final = {key.encode(): value for key, value in etcd.keys(STATE.decode()).items()}
    for follower in followers:
        assert follower.keys == final
        assert len(follower.cluster_ids) == 1
        for stretch in follower.stretches:
            check_stretch(stretch, truth)
    assert not any("Traceback" in proxy.log.read_text() for proxy in proxies)
    assert any(len(stretch.events) > 20 for follower in followers for stretch in follower.stretches)
