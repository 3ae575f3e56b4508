"""One connection to a cluster's etcd (behind its proxy): heartbeat, configuration, canaries, then every kind of record
by list and watch. It lives until something fails, which it says by raising; what was heard stays with the sink.
Trying again is remote.py.
"""

import asyncio
from collections.abc import Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import grpc.aio

from meshd.cancellation import heed_cancellation
from meshd.daemon.etcd import Compacted, TooLarge, WatchStream, list_page, peer_error
from meshd.daemon.link import PeerRejected, PeerUnavailable
from meshd.daemon.watch import Changes, ListFrom, WatchFrom, WatchMachine, Why
from wire.codec import BadRecord, decode_cluster_config
from wire.keys import (
    HEARTBEAT,
    LOCAL_KINDS,
    LOCAL_SYNCED_PREFIX,
    SYNCED_PREFIX,
    Kind,
    Layout,
    canary,
    cluster_config,
    interval,
    prefix,
)
from wire.records import ClusterConfig, value_or

CONNECT_TIMEOUT_S = 5.0
RANGE_TIMEOUT_S = 60.0
CONFIRM_AGAIN_S = 2.0
CONFIRM_TIMEOUT_S = 5.0
PAGE_DIVISOR = 4
CANARIES_MAX = 64  # a cluster has one for each kind
SLICE = 256  # records of a list that are decoded before others get their turn
BRIEF = 64  # the same of what is told meanwhile
PAGE = {Kind.IP: 20_000, Kind.IDENTITY: 20_000, Kind.ALLOCATION: 20_000, Kind.NODE: 2_000}
DEFAULT_PAGE = 500  # services may have thousands of backends


Held = Mapping[Kind, Set[str]]


class Sink(Protocol):
    """Who keeps what a connection hears."""

    def accept(self, config: ClusterConfig) -> Mapping[Kind, WatchMachine]:
        """The kinds to follow, each with the machine that knows what was heard before. Raises PeerRejected."""

    def apply(self, kind: Kind, changes: Changes, revision: int) -> None: ...

    def listed(self, kind: Kind) -> None:
        """The list of this kind is complete."""

    def beat(self, value: bytes) -> None:
        """A heartbeat arrived, or stood there already."""

    async def turn(self) -> None:
        """Returns when the lists may begin: not everybody's at once."""

    def held(self) -> Held:
        """Deletes that wait until they are confirmed."""

    def confirm(self, held: Held, missing: str) -> None:
        """Whether the writer was there after these were heard: "" if it was, else what was missing of it."""

    def is_beating(self) -> bool:
        """The last heartbeat is not too old."""


@dataclass(slots=True, eq=False)
class Feed:
    """A range that is followed; `kind` is None for keys that are about the others."""

    machine: WatchMachine
    folder: str
    kind: Kind | None = None
    watched: bool = False
    """There was a watch already."""


class Connection:
    """`run` it once."""

    def __init__(self, channel: grpc.aio.Channel, cluster: str, sink: Sink) -> None:
        self._channel, self._cluster, self._sink = channel, cluster, sink
        self._heartbeat = Feed(WatchMachine(*interval(HEARTBEAT)), HEARTBEAT)
        self._config = Feed(WatchMachine(cluster_config(cluster).encode(), b""), cluster_config(cluster))
        self._accepted: ClusterConfig | None = None
        self._answered = False
        self._doubt = asyncio.Event()
        self._promised: dict[Kind, str] = {}  # the canary of each kind, where there are any
        self._canaries: list[Feed] = []
        self._waiting: dict[str, Feed] = {}  # by the canary that says that the list can start
        self._started: list[Feed] = []

    def doubt(self) -> None:
        """Something speaks against the other side being there: ask it, and end if it does not answer."""
        self._doubt.set()

    async def run(self) -> NoReturn:
        """Raises PeerUnavailable or PeerRejected, sooner or later."""
        try:
            await self._run()
        except grpc.aio.AioRpcError as error:
            raise peer_error(error, answered=self._answered) from error
        except BaseExceptionGroup as group:
            heed_cancellation()
            raise _peer_error_of(group) from group
        raise PeerUnavailable("the watch stream ended")

    async def _run(self) -> None:
        asks = [(feed, await self._list(feed, CONNECT_TIMEOUT_S)) for feed in (self._heartbeat, self._config)]
        if self._accepted is None:
            raise PeerUnavailable(f"{self._config.folder} is not there (yet): does the cluster's agent run?")
        await self._sink.turn()
        stream: WatchStream[Feed] = WatchStream(self._channel)
        try:
            async with asyncio.TaskGroup() as group:
                for feed, ask in asks:
                    await stream.create(ask, feed)
                self._started += self._canaries
                group.create_task(self._confirm())
                await self._read(stream, group)
        finally:
            stream.cancel()

    async def _read(self, stream: WatchStream[Feed], group: asyncio.TaskGroup) -> None:
        self._start(stream, group)
        async for feed, answer in stream.answers():
            if answer is None:
                self._started.append(feed)
            else:
                await self._hear(feed, answer)
            if self._started:
                self._start(stream, group)
        raise PeerUnavailable("the watch stream ended")

    async def _hear(self, feed: Feed, answer: Any) -> None:
        """What a cluster that floods says comes in long answers, during which all others would wait."""
        events, revision = answer.events, answer.header.revision
        for start in range(0, max(len(events), 1), BRIEF):
            more = start + BRIEF < len(events)
            self._take(feed, feed.machine.events(events[start : start + BRIEF], revision, more=more))
            if more:
                await asyncio.sleep(0)

    def _start(self, stream: WatchStream[Feed], group: asyncio.TaskGroup) -> None:
        started, self._started = self._started, []
        for feed in started:
            group.create_task(self._follow(stream, group, feed))

    async def _follow(self, stream: WatchStream[Feed], group: asyncio.TaskGroup, feed: Feed) -> None:
        await stream.create(await self._list(feed, RANGE_TIMEOUT_S), feed)
        feed.watched = True
        self._start(stream, group)

    async def _confirm(self) -> NoReturn:
        """A delete is believed only if the one who writes the records was there after it: an agent that is dead for
        longer than its lease has deleted nothing.
        """
        while True:
            held = self._sink.held()
            missing = await self._missing()
            self._sink.confirm(held, missing)
            with suppress(TimeoutError):
                async with asyncio.timeout(CONFIRM_AGAIN_S if missing else None):
                    await self._doubt.wait()
            self._doubt.clear()

    async def _missing(self) -> str:
        """What of configuration, canaries and heartbeat is not there now; "" if all are, and the heartbeat is fresh."""
        asks = [(HEARTBEAT.encode(), b""), (self._config.folder.encode(), b"")]
        asks += [interval(feed.folder) for feed in self._canaries]  # one question for all: each delete asks
        pages = await asyncio.gather(
            *(
                list_page(self._channel, ListFrom(*ask, 0), limit=CANARIES_MAX, timeout_s=CONFIRM_TIMEOUT_S)
                for ask in asks
            )
        )
        there = {kv.key.decode(errors="backslashreplace") for page in pages for kv in page.kvs}
        gone = [key for key in (HEARTBEAT, self._config.folder, *self._promised.values()) if key not in there]
        if gone:
            return "missing: " + ", ".join(gone)
        return "" if self._sink.is_beating() else "the heartbeat stands still"

    async def _list(self, feed: Feed, timeout_s: float) -> WatchFrom:
        limit = PAGE.get(feed.kind, DEFAULT_PAGE) if feed.kind else DEFAULT_PAGE
        ask: ListFrom | WatchFrom = feed.machine.start(Why.COMPACTED if feed.watched else Why.CONNECTED)
        while isinstance(ask, ListFrom):
            try:
                page = await list_page(self._channel, ask, limit=limit, timeout_s=timeout_s)
            except Compacted:
                ask = feed.machine.start(Why.COMPACTED)
                continue
            except TooLarge:
                if limit == 1:
                    raise
                limit = max(1, limit // PAGE_DIVISOR)
                continue
            self._answered = True
            for start in range(0, max(len(page.kvs), 1), SLICE):
                more = page.more or start + SLICE < len(page.kvs)
                changes, ask = feed.machine.page(
                    page.kvs[start : start + SLICE], page.header.revision, more, history=page.header.cluster_id
                )
                self._take(feed, changes)
                await asyncio.sleep(0)
        if feed.kind:
            self._sink.listed(feed.kind)
        self._mind_room(feed)
        return ask

    def _mind_room(self, feed: Feed) -> None:
        if feed.machine.has_room:
            raise PeerUnavailable(f"there is room again for {feed.kind} that were over quota: listing anew")

    def _take(self, feed: Feed, changes: Changes) -> None:
        if feed.kind:
            self._sink.apply(feed.kind, changes, feed.machine.revision)
            if changes.deletes:
                self._doubt.set()
                if feed.machine.synced:
                    self._mind_room(feed)
            return
        self._doubt.set()
        if feed is self._heartbeat:
            for value in changes.puts.values():
                self._sink.beat(value)
        elif feed is self._config:
            for value in changes.puts.values():
                self._configure(value)
        else:
            for name in changes.puts:
                if waiting := self._waiting.pop(feed.folder + name, None):
                    self._started.append(waiting)

    def _configure(self, value: bytes) -> None:
        try:
            config = decode_cluster_config(value)
        except BadRecord as error:
            raise PeerRejected(f"{self._config.folder}: {error.reason}: {error}") from error
        if self._accepted is None:
            self._accepted = config
            self._plan(config)
        elif config != self._accepted:
            raise PeerUnavailable("its cluster-config changed: connecting again")

    def _plan(self, config: ClusterConfig) -> None:
        layout = Layout.CACHE if value_or(config.capabilities.cached, False) else Layout.STATE
        feeds = {}
        for kind, machine in self._sink.accept(config).items():
            folder = prefix(kind, self._cluster, layout)
            machine.move(*interval(folder))
            feeds[canary(kind, self._cluster, layout)] = Feed(machine, folder, kind)
        if value_or(config.capabilities.synced_canaries, False):
            self._waiting = dict(feeds)
            self._promised = {feed.kind: key for key, feed in feeds.items() if feed.kind}
            self._canaries = [_canary_feed(f"{SYNCED_PREFIX}{self._cluster}/")]
            if any(feed.kind in LOCAL_KINDS for feed in feeds.values()):
                self._canaries.append(_canary_feed(LOCAL_SYNCED_PREFIX))
        else:
            self._started += feeds.values()


def _canary_feed(folder: str) -> Feed:
    return Feed(WatchMachine(*interval(folder)), folder)


def _peer_error_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first failure of the group; a bug (none of the known errors) goes before all."""
    leaves = list(_leaves(group))
    for leaf in leaves:
        if not isinstance(leaf, PeerUnavailable | PeerRejected | grpc.aio.AioRpcError):
            return leaf
    first = leaves[0]
    return peer_error(first) if isinstance(first, grpc.aio.AioRpcError) else first


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves
