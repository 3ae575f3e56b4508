"""One cluster that we listen to (a remote, or our own): connects, keeps what it says in the store, connects again.

Losing the connection loses nothing that was heard. Back-off is exponential with full jitter, capped; after a
connection that had been up the first try comes at once, jittered.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from identity.numbering import identity_range
from meshd.daemon.connection import Connection
from meshd.daemon.credentials import BadCredentials, read_credentials
from meshd.daemon.etcd import open_channel
from meshd.daemon.link import Link, LinkState, PeerRejected, PeerUnavailable
from meshd.daemon.members import IdTaken, Members
from meshd.daemon.remotefile import RemoteFile
from meshd.daemon.store import Store
from meshd.daemon.watch import Changes, WatchMachine
from wire.codec import Scope
from wire.keys import Kind
from wire.records import ClusterConfig

logger = logging.getLogger(__name__)

BACKOFF_START_S = 0.2
BACKOFF_MAX_S = 5.0
REJECTED_MAX_S = 30.0


class Remote:
    """`run` it as a task; cancel that to stop. `on_change` is called when the link's state changes."""

    def __init__(
        self, file: RemoteFile, *, kinds: Sequence[Kind], store: Store, members: Members, on_change: Callable[[], None]
    ) -> None:
        self.cluster = file.cluster
        self.link = Link(since=time.monotonic(), warnings=file.warnings)
        self.connects = 0
        self._file, self._kinds, self._store, self._members = file, kinds, store, members
        self._machines: dict[Kind, WatchMachine] = {}
        self._on_change = on_change
        self._listed: set[Kind] = set()
        self._up = False
        self._left = False
        store.expect(file.cluster)

    @property
    def kinds(self) -> Sequence[Kind]:
        return self._kinds

    @property
    def relists(self) -> int:
        """Lists that were started, of all kinds together."""
        return sum(machine.relists for machine in self._machines.values())

    def replace(self, file: RemoteFile) -> None:
        """The next connection is made as this file says; what was heard stays."""
        self._file = file
        self.link.warnings = file.warnings

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
            self.link.not_after = credentials.not_after
            async with open_channel(target, credentials.channel, self._file.server_name) as channel:
                await Connection(channel, self.cluster, self).run()
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
            self._members.join(self.cluster, config.id)
            identities = identity_range(config.id, max_clusters=self._members.max_clusters)
        except (IdTaken, ValueError) as error:
            raise PeerRejected(f"cluster-config of {self.cluster}: {error}") from error
        scope = Scope(self.cluster, config.id, identities)
        if self._store.expect(self.cluster).scope != scope:
            self._machines = {kind: WatchMachine(b"", b"") for kind in self._kinds}
        self._store.accept(self.cluster, scope)
        self.link.connected_at = time.monotonic()
        self._become(LinkState.WAITING, "lists")
        self._listed = set()
        return self._machines

    def apply(self, kind: Kind, changes: Changes, revision: int) -> None:
        if self._left:
            return
        self._store.apply(self.cluster, kind, changes, now=time.monotonic(), revision=revision)

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
        self._become(LinkState.READY)

    def beat(self) -> None:
        self.link.heartbeat_at = time.monotonic()

    def _become(self, state: LinkState, reason: str = "") -> None:
        if state in (LinkState.REJECTED, LinkState.DISCONNECTED):
            self.link.failures += 1
        before = self.link.state
        if self.link.become(state, now=time.monotonic(), reason=reason) and state is not LinkState.WAITING:
            level = logging.WARNING if state in (LinkState.REJECTED, LinkState.DISCONNECTED) else logging.INFO
            logger.log(
                level, "remote %s", state, extra={"cluster": self.cluster, "was": before, "reason": reason or "-"}
            )
        self._on_change()


_unavailable = wait_random_exponential(multiplier=BACKOFF_START_S, max=BACKOFF_MAX_S)
_rejected = wait_random_exponential(multiplier=BACKOFF_START_S * 4, max=REJECTED_MAX_S)


def backoff_s(state: RetryCallState) -> float:
    """Somebody must act before a rejected one works: try less often."""
    error = state.outcome.exception() if state.outcome else None
    return (_rejected if isinstance(error, PeerRejected) and error.certain else _unavailable)(state)
