"""The one list and the one watch that a proxy has at its etcd.

A new history is listed at an older revision than the newest, and watched forward from there, so that readers of a
proxy that went away can go on here. It is served once it has caught up. When etcd goes away what is known stays, and
is served; when it comes back with the same history the watch goes on from the last revision.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from certs.pair import Pair
from etcdproxy.connection import END, START, Connection, HistoryLost, Overtaken, UpstreamAway, Watch
from etcdproxy.heap import lasting_heap
from etcdproxy.history import Entry, History
from etcdproxy.hub import Hub
from etcdproxy.listing import (
    GENERATION_KEY,
    Goal,
    cut_at_generation,
    derive_cluster_id,
    generation_of,
    is_same_history,
    nearest_start,
    read_entry,
)
from etcdproxy.store import Store
from wire.proto import rpc_pb2

logger = logging.getLogger(__name__)

LOOK_BACK = 10_000  # revisions that a new history reaches back, if etcd still has them
_MAX_CHANGED = 20_000  # keys that a new history may have to catch up with, else it reaches back less far
_MAX_WAIT_S = 3.0
_NEW_GENERATION = "meshd/v1/generation changed"


class State(StrEnum):
    STARTING = "starting"
    SYNCED = "synced"
    AWAY = "away"


@dataclass(slots=True)
class UpstreamStatus:
    """`since` is when the state began, in seconds of the monotonic clock."""

    state: State = State.STARTING
    since: float = field(default_factory=time.monotonic)
    problem: str = ""
    lists: int = 0
    resumes: int = 0


class Upstream:
    """Keeps a hub at the state of one etcd. `run` never returns."""

    def __init__(
        self,
        target: str,
        hub: Hub,
        *,
        look_back: int = LOOK_BACK,
        pair: Callable[[], Pair | None] = lambda: None,
    ) -> None:
        """`pair` is asked for what we show etcd on every new connection; None: in clear."""
        self.status = UpstreamStatus()
        self.target = target
        self._pair = pair
        self._hub = hub
        self._look_back = look_back
        self._etcd_cluster_id = 0
        self._resumable = False
        self._continues = False
        self._synced = False

    async def run(self) -> None:
        while True:
            retrying = AsyncRetrying(
                retry=retry_if_exception_type(UpstreamAway),
                wait=wait_random_exponential(multiplier=0.1, max=_MAX_WAIT_S),
                before_sleep=self._note_failure,
            )
            async for attempt in retrying:
                with attempt:
                    await self._session()

    async def _session(self) -> None:
        """One connection, to its end. Raises UpstreamAway if it never came so far as to serve."""
        self._synced = False
        try:
            async with Connection.open(self.target, self._pair()) as connection:
                await self._serve(connection)
        except UpstreamAway as error:
            if isinstance(error, Overtaken | HistoryLost):
                self._note_list_anew(str(error))
                self._resumable = False
                self._continues = self._continues and not isinstance(error, HistoryLost)
            elif self._synced:
                self._note_away(str(error))
            if not self._synced:
                raise

    async def _serve(self, connection: Connection) -> None:
        if self._resumable:
            await self._check_continues(connection)
            async with connection.watch(self._hub.history.revision + 1) as watch:
                self.status.resumes += 1
                await self._follow(watch)
        version = await connection.version()
        with lasting_heap():
            history, goal, header = await self._list(connection)
        async with connection.watch(history.revision + 1) as watch:
            while not goal.is_reached(history):
                for commit in await watch.commits():
                    history.add(commit.revision, commit.changes)
            self._etcd_cluster_id = header.cluster_id
            store = self._store(history, header, version)
            self._hub.replace(history, store, continues=self._continues)
            self._resumable = self._continues = True
            self.status.lists += 1
            await self._follow(watch)

    async def _check_continues(self, connection: Connection) -> None:
        answer = await connection.range(rpc_pb2.RangeRequest(key=GENERATION_KEY))
        header, heard = answer.header, self._hub.history.revision
        if not is_same_history(header, cluster_id=self._etcd_cluster_id, revision=heard):
            here, there = f"{header.cluster_id:x} at {header.revision}", f"{self._etcd_cluster_id:x} at {heard}"
            raise HistoryLost(f"this is etcd {here}, the one heard before was {there}")
        # Restored from a copy, and written to since: neither its id nor its revision shows it.
        if b"".join(kv.value for kv in answer.kvs) != generation_of(self._hub.history):
            raise HistoryLost(_NEW_GENERATION)

    async def _list(self, connection: Connection) -> tuple[History, Goal, rpc_pb2.ResponseHeader]:
        everything = rpc_pb2.RangeRequest(key=START, range_end=END, count_only=True)
        newest = await connection.range(everything)
        revision = newest.header.revision
        generation = await connection.range(rpc_pb2.RangeRequest(key=GENERATION_KEY, revision=revision))
        # Never back over the point where a history was lost: what lies below belongs to another one.
        oldest = max([1, *(kv.mod_revision for kv in generation.kvs)])
        at = max(revision - self._look_back, oldest)
        changed = await self._changed(connection, at, revision)
        at = nearest_start(changed.values(), at, _MAX_CHANGED)
        while True:
            goal = Goal(revision, {key: last for key, last in changed.items() if last > at}, newest.count)
            try:
                return await self._list_at(connection, at), goal, newest.header
            except Overtaken:
                if at == revision:
                    raise
                at = revision - (revision - at) // 10

    async def _changed(self, connection: Connection, at: int, revision: int) -> dict[bytes, int]:
        """The keys that were put after `at` and are there at `revision`, and when they were put last."""
        if at == revision:
            return {}
        request = rpc_pb2.RangeRequest(
            key=START, range_end=END, revision=revision, min_mod_revision=at + 1, keys_only=True
        )
        return {kv.key: kv.mod_revision for kv in (await connection.range(request)).kvs}

    async def _list_at(self, connection: Connection, at: int) -> History:
        entries: dict[bytes, Entry] = {}
        async for page in connection.pages(at):
            entries |= {kv.key: read_entry(kv) for kv in page}
        return History(entries, at)

    async def _follow(self, watch: Watch) -> None:
        """Applies commits until the connection ends or a new generation says that the history was lost."""
        generation = generation_of(self._hub.history)
        self._note_synced()
        while True:
            commits = await watch.commits()
            self._note_store(watch.header)
            while commits:
                known, commits = cut_at_generation(commits)
                self._hub.apply(known)
                if generation_of(self._hub.history) != generation:
                    raise HistoryLost(_NEW_GENERATION)

    def _note_store(self, header: rpc_pb2.ResponseHeader) -> None:
        store = self._hub.store
        if (header.member_id, header.raft_term) != (store.member_id, store.raft_term):
            self._hub.update_store(replace(store, member_id=header.member_id, raft_term=header.raft_term))

    def _store(self, history: History, header: rpc_pb2.ResponseHeader, version: str) -> Store:
        cluster_id = derive_cluster_id(header.cluster_id, generation_of(history))
        return Store(cluster_id, header.member_id, header.raft_term, version)

    def _note_synced(self) -> None:
        history = self._hub.history
        logger.info("etcd synced", extra={"etcd": self.target, "revision": history.revision, "keys": len(history)})
        self._synced = True
        self.status.state, self.status.since, self.status.problem = State.SYNCED, time.monotonic(), ""

    def _note_list_anew(self, problem: str) -> None:
        logger.warning("etcd must be listed anew", extra={"etcd": self.target, "reason": problem})
        self.status.state, self.status.since, self.status.problem = State.STARTING, time.monotonic(), problem

    def _note_failure(self, attempt: RetryCallState) -> None:
        error = attempt.outcome.exception() if attempt.outcome else None
        if not isinstance(error, Overtaken | HistoryLost):  # then it is there, and something else was said of it
            self._note_away(str(error))

    def _note_away(self, problem: str) -> None:
        if self.status.state is not State.AWAY:  # said once, not at every attempt
            logger.warning("etcd is away, retrying", extra={"etcd": self.target, "reason": problem})
            self.status.state, self.status.since = State.AWAY, time.monotonic()
        self.status.problem = problem
