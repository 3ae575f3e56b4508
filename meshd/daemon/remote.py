"""One cluster that we listen to (a remote, or our own): connects, keeps what it says in the store, connects again.

Losing the connection loses nothing that was heard. Back-off is exponential with full jitter, capped; after a
connection that had been up the first try comes at once, jittered.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from typing import NoReturn

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from identity.numbering import identity_range
from meshd.daemon.allowance import OWN_CLUSTER
from meshd.daemon.connection import Connection
from meshd.daemon.credentials import BadCredentials, read_credentials
from meshd.daemon.etcd import open_channel
from meshd.daemon.lag import Lags
from meshd.daemon.link import Link, LinkState, PeerRejected, PeerUnavailable
from meshd.daemon.members import IdTaken, Members
from meshd.daemon.pacer import Pacer
from meshd.daemon.presence import HEARTBEAT_MAX_S, Presence
from meshd.daemon.remotefile import RemoteFile
from meshd.daemon.servercert import NoCertificate, read_server_certificate
from meshd.daemon.store import Store
from meshd.daemon.timeline import Timeline
from meshd.daemon.watch import ROOM, Changes, WatchMachine, Why
from wire.codec import SLICES_ONLY, Scope
from wire.keys import Kind
from wire.records import ClusterConfig, value_or

BACKOFF_START_S = 0.2
BACKOFF_MAX_S = 5.0
REJECTED_MAX_S = 30.0


class Remote:
    """`run` it as a task; cancel that to stop. `on_change` is called when the link's state changes."""

    def __init__(
        self,
        file: RemoteFile,
        *,
        kinds: Sequence[Kind],
        store: Store,
        members: Members,
        on_change: Callable[[], None],
        timeline: Timeline,
        pacer: Pacer | None = None,
        is_local: bool = False,
        lags: Lags | None = None,
    ) -> None:
        self._timeline = timeline
        self.cluster = file.cluster
        self.is_local = is_local
        self.allowance = OWN_CLUSTER if is_local else file.allowance
        self.link = Link(since=time.monotonic(), warnings=file.warnings)
        self.presence = Presence(lost_at=time.monotonic(), since=time.monotonic())
        self.slices_only = False
        """It exports its services as EndpointSlices only, which meshd does not read."""
        self.frozen = ""
        """What is missing of the one who writes its records; "" if nothing is. Meanwhile nothing is deleted."""
        self._pacer = pacer or Pacer(0.0)
        self._lags = lags or Lags()
        self._held: dict[Kind, set[str]] = {}
        self._heartbeat: bytes | None = None
        self._connection: Connection | None = None
        self._look: asyncio.Task[None] | None = None
        self.connects = 0
        self._file, self._kinds, self._store, self._members = file, kinds, store, members
        self._machines: dict[Kind, WatchMachine] = {}
        self._on_change = on_change
        self._listed: set[Kind] = set()
        self._up = False
        self._left = False
        store.expect(file.cluster)

    @property
    def file(self) -> RemoteFile:
        """How it is reached."""
        return self._file

    @property
    def kinds(self) -> Sequence[Kind]:
        return self._kinds

    @property
    def relists(self) -> Counter[Why]:
        """Lists that were begun, of all kinds together, by their cause."""
        return sum((machine.relists for machine in self._machines.values()), Counter[Why]())

    def replace(self, file: RemoteFile) -> None:
        """The next connection is made as this file says; what was heard stays."""
        self._file = file
        self.link.warnings = file.warnings
        if not self.is_local:
            self.allowance = file.allowance
        for kind, machine in self._machines.items():
            machine.limit = self._limit(kind)
            machine.doubt()  # what was over quota may have room now

    def _limit(self, kind: Kind) -> int | None:
        quota = self.allowance.quotas.get(kind)
        return quota.records if quota else None

    @property
    def beyond(self) -> Mapping[Kind, int]:
        """How many names of a kind were over its quota, at least."""
        return {kind: machine.beyond for kind, machine in self._machines.items() if machine.beyond}

    @property
    def waiting_deletes(self) -> int:
        """Deletes that are not believed (yet)."""
        return sum(map(len, self._held.values()))

    def leave(self) -> None:
        """The cluster leaves. A task that is being cancelled may run on for a moment: nothing of it counts."""
        self._left = True

    async def run(self) -> NoReturn:
        targets = list(self._file.targets)
        random.shuffle(targets)
        while True:
            retrying = AsyncRetrying(
                wait=backoff_s,
                retry=retry_if_exception_type((PeerUnavailable, PeerRejected)),
            )
            async for attempt in retrying:
                with attempt:
                    targets.append(targets.pop(0))
                    await self._connect(targets[-1])
            await asyncio.sleep(random.uniform(0, BACKOFF_START_S))  # noqa: S311 — spreads load, hides nothing

    async def _connect(self, target: str) -> None:
        """Returns when a connection that had been up is lost; raises PeerUnavailable or PeerRejected otherwise."""
        self._up = False
        self.connects += 1
        self.link.target = target
        try:
            credentials = read_credentials(self._file)
            if self.link.not_after not in (None, credentials.not_after):
                until = f"valid until {credentials.not_after:%Y-%m-%d %H:%M:%S}Z"
                self._timeline.note("certificate reloaded", self.cluster, until)
            self.link.not_after = credentials.not_after
            async with open_channel(target, credentials.channel, self._file.server_name) as channel:
                self._connection = Connection(channel, self.cluster, self)
                await self._connection.run()
        except BadCredentials as error:
            self._become(LinkState.REJECTED, str(error))
            raise PeerRejected(str(error)) from error
        except PeerRejected as error:
            self._become(LinkState.REJECTED, str(error))
            raise
        except PeerUnavailable as error:
            self._become(LinkState.DISCONNECTED, str(error))
            if not self._up:
                raise

    def accept(self, config: ClusterConfig) -> Mapping[Kind, WatchMachine]:
        if self._left:
            raise PeerUnavailable("the cluster left")
        try:
            self._members.agree(value_or(config.capabilities.max_connected_clusters, 0))
            self._members.join(self.cluster, config.id)
            identities = identity_range(config.id, max_clusters=self._members.max_clusters)
        except (IdTaken, ValueError) as error:
            raise PeerRejected(f"cluster-config of {self.cluster}: {error}") from error
        scope = Scope(self.cluster, config.id, identities)
        if self._store.expect(self.cluster).scope != scope:
            self._machines = {kind: WatchMachine(b"", b"", limit=self._limit(kind)) for kind in self._kinds}
            self._held.clear()
        self._store.accept(self.cluster, scope)
        self.link.connected_at = time.monotonic()
        self._become(LinkState.WAITING, "lists")
        self._listed = set()
        self.slices_only = config.capabilities.endpoint_slices_export_mode == SLICES_ONLY
        if not self.slices_only:
            return self._machines
        self._do_without_services()
        return {kind: machine for kind, machine in self._machines.items() if kind is not Kind.SERVICE}

    def _do_without_services(self) -> None:
        """It says its services in a way that we do not read: those that it said before go, nobody waits for them."""
        self._machines[Kind.SERVICE] = WatchMachine(b"", b"", limit=self._limit(Kind.SERVICE))
        self._held[Kind.SERVICE] = set(self._store.records(self.cluster, Kind.SERVICE))
        self._store.listed(self.cluster, Kind.SERVICE, now=time.monotonic())
        self._listed.add(Kind.SERVICE)

    def apply(self, kind: Kind, changes: Changes, revision: int) -> None:
        if self._left:
            return
        held = self._held.setdefault(kind, set())
        held.difference_update(changes.puts)
        held.update(changes.deletes)
        now = time.monotonic()
        self._store.apply(self.cluster, kind, Changes(changes.puts), now=now, revision=revision)
        self._note_lag(kind, now)

    def _note_lag(self, kind: Kind, now: float) -> None:
        if kind in self._listed and (self.cluster, kind) in self._store.dirty:
            self._lags.hear(self.cluster, now)

    def held(self) -> Mapping[Kind, Set[str]]:
        return {kind: frozenset(names) for kind, names in self._held.items() if names}

    def confirm(self, held: Mapping[Kind, Set[str]], missing: str) -> None:
        if self._left:
            return
        if missing != self.frozen:
            self.frozen = missing
            self._timeline.note("frozen" if missing else "thawed", self.cluster, missing, bad=bool(missing))
        if missing:
            self.presence.lose(time.monotonic())
        else:
            self._release(held)
        self._find()

    def _release(self, held: Mapping[Kind, Set[str]]) -> None:
        for kind, names in held.items():
            gone = self._held[kind] & names
            self._held[kind] -= gone
            machine, shelf = self._machines[kind], self._store.clusters[self.cluster].shelf(kind)
            self._store.apply(self.cluster, kind, Changes({}, gone), now=time.monotonic(), revision=machine.revision)
            quota = self.allowance.quotas.get(kind)
            if quota and shelf.over_quota and shelf.weight < quota.bytes * ROOM:
                machine.doubt()
                raise PeerUnavailable(f"there is room again for {kind} that were over quota: listing anew")

    async def turn(self) -> None:
        await self._pacer.turn()

    def is_beating(self) -> bool:
        beat = self.link.heartbeat_at
        return beat is not None and time.monotonic() - beat <= HEARTBEAT_MAX_S

    def suspect(self) -> None:
        """Its nodes do not answer: is the control link as dead, and nobody has noticed yet?"""
        if self._connection is not None and self.link.state is LinkState.READY:
            self._connection.doubt()

    def look(self, now: float) -> None:
        """Now and then: is it still there? A heartbeat that stands still is a lost control link too."""
        if self.link.state is LinkState.READY and not self.is_beating():
            self.presence.lose(now)

    def _find(self) -> None:
        if self.link.state is LinkState.READY and not self.frozen and self.is_beating():
            self.presence.find()

    def listed(self, kind: Kind) -> None:
        if self._left:
            return
        self._store.listed(self.cluster, kind, now=time.monotonic())
        self._listed.add(kind)
        if missing := [kind for kind in self._kinds if kind not in self._listed]:
            self._become(LinkState.WAITING, "for " + ", ".join(missing))
            return
        self._up = True
        self.link.failures = 0
        self.link.sync_s = time.monotonic() - (self.link.connected_at or 0.0)
        self._become(LinkState.READY)
        self._find()
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._look_at_certificate(), name=f"certificate {self.cluster}")

    async def _look_at_certificate(self) -> None:
        with suppress(NoCertificate):
            self.link.server = await read_server_certificate(self.link.target, self._file)

    def beat(self, value: bytes) -> None:
        """Only another value than before says that somebody is alive; which one it is does not matter."""
        if value != self._heartbeat:
            self._heartbeat = value
            self.link.heartbeat_at = time.monotonic()
            self._find()

    def _become(self, state: LinkState, reason: str = "") -> None:
        if state in (LinkState.REJECTED, LinkState.DISCONNECTED):
            self.link.failures += 1
            self.presence.lose(time.monotonic())
        before = self.link.state
        if self.link.become(state, now=time.monotonic(), reason=reason) and state is not LinkState.WAITING:
            bad = state in (LinkState.REJECTED, LinkState.DISCONNECTED)
            self._timeline.note(f"link {state}", self.cluster, reason or f"was {before}", bad=bad)
        self._on_change()


_unavailable = wait_random_exponential(multiplier=BACKOFF_START_S, max=BACKOFF_MAX_S)
_rejected = wait_random_exponential(multiplier=BACKOFF_START_S * 4, max=REJECTED_MAX_S)


def backoff_s(state: RetryCallState) -> float:
    """Somebody must act before a rejected one works: try less often."""
    error = state.outcome.exception() if state.outcome else None
    return (_rejected if isinstance(error, PeerRejected) and error.certain else _unavailable)(state)
