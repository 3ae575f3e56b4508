"""The parts of the agent, joined: from the source into what is desired, from there into etcd."""

import asyncio
import logging
import os
import socket
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from identity.allocation import Allocator
from identity.labels import LabelFilter
from identity.numbering import identity_range
from meshd.agent.etcd.connection import EtcdConnection, EtcdUnavailable, HistoryLost, LeaseLost
from meshd.agent.etcd.etcd3_client import LeaderLock
from meshd.agent.etcd.ledger import Ledger
from meshd.agent.etcd.lookout import Disturbed, Lookout
from meshd.agent.etcd.progress import Desired, Progress
from meshd.agent.etcd.transactions import Fence, LeadershipLost
from meshd.agent.etcd.writer import Writer
from meshd.agent.leadership import acquire, keep_leading, release
from meshd.agent.publish.publisher import Publisher
from meshd.agent.publish.scope import Scope
from meshd.agent.settings import AgentConfig
from meshd.agent.sources.apiserver import ApiServer
from meshd.agent.sources.cluster import KubernetesSource
from meshd.agent.sources.credentials import Credentials
from meshd.agent.sources.manifests import ManifestSource
from meshd.agent.sources.reflector import Timing
from meshd.agent.sources.source import Source
from meshd.agent.state import LocalState
from meshd.config import ConfigError
from wire import codec

if TYPE_CHECKING:
    from meshd.agent.imports.importer import Importer

logger = logging.getLogger(__name__)

#: A turn at writing that ends sooner than this is followed by a pause, s.
STEADY_S = 10.0
#: The longest pause between two tries to reach etcd.
MAX_RETRY_S = 1.0


class ShortSpell(Exception):
    """A turn at writing was over soon: the next one waits a little."""


@dataclass(slots=True)
class EtcdState:
    """How it stands with etcd. `since` is monotonic, s. Phases: connecting, standby, listing, writing."""

    phase: str = "connecting"
    since: float = field(default_factory=time.monotonic)
    error: str = ""

    def enter(self, phase: str) -> None:
        if phase != self.phase:
            self.phase, self.since = phase, time.monotonic()


class Agent:
    """The parts of the agent and the three loops that join them."""

    def __init__(self, config: AgentConfig) -> None:
        self.config = config
        self.state = LocalState()
        self.source = make_source(config)
        scope = Scope(
            cluster=config.cluster,
            cluster_id=config.cluster_id,
            tunnel=config.tunnel,
            namespaces_are_global=config.namespaces_are_global,
            keep_label=LabelFilter(config.drop_labels),
        )
        numbers = identity_range(config.cluster_id, max_clusters=config.max_clusters)
        identities = Allocator(numbers)
        self.desired = Desired(Publisher(scope, self.state, identities), identities, Ledger(config.cluster))
        self.progress = Progress()
        self.etcd_state = EtcdState()
        self._endpoint = config.endpoint()
        self.etcd = EtcdConnection(self._endpoint)
        self.scope = codec.Scope(config.cluster, config.cluster_id, numbers)
        self.importer = self._make_importer()
        self.applying_s = 0.0
        self._history_lost = False
        self.ending = False
        """Somebody has told it to end: what fails from now on is no reason to start over."""

    def _make_importer(self) -> "Importer | None":
        if self.config.import_from is None:
            return None
        from meshd.agent.imports.importer import Importer  # not above: few need it, and it takes memory
        from meshd.agent.imports.plan import Plan

        server = ApiServer(make_credentials(self.config), silence_s=Timing().silence_s)
        return Importer(Plan(self.state, self.desired.publisher.is_global), server, self.desired.publisher.node_value)

    async def close(self) -> None:
        """Its connections; nothing may be under way."""
        await self.etcd.close()
        if self.importer is not None:
            await self.importer.close()

    async def observe(self) -> None:
        """From the source into what is desired."""
        async with aclosing(self.source.changes()) as stream:
            async for changes in stream:
                now = asyncio.get_running_loop().time()
                self.desired.whole = changes.whole
                began = time.perf_counter()
                self.desired.mark(self.state.apply(changes), synced=changes.synced, now=now)
                self.applying_s += time.perf_counter() - began
                if self.importer is not None:
                    self.importer.take(changes)

    async def publish(self) -> None:
        """Writes whenever etcd lets it, for ever; the lock is let go at the end. Raises NotOurs."""
        holder = f"{socket.gethostname()}:{os.getpid()}"
        lock = LeaderLock(self.config, holder=holder, ttl_s=self.config.leader_ttl_s)
        try:
            await self._publish(lock)
        finally:
            await release(lock)

    async def _publish(self, lock: LeaderLock) -> None:
        while True:
            retrying = AsyncRetrying(
                wait=wait_random_exponential(multiplier=0.1, max=MAX_RETRY_S),
                retry=retry_if_exception_type(ShortSpell),
            )
            async for attempt in retrying:
                with attempt:
                    await self._spell(lock)

    async def _spell(self, lock: LeaderLock) -> None:
        """One turn at writing. Returns when it is over; raises ShortSpell if that was so soon that a pause is due."""
        began = time.monotonic()
        if self._endpoint.refresh():
            await self.etcd.reopen()
            await asyncio.to_thread(lock.reopen)
        try:
            await self._lead(lock)
        except* (LeaseLost, LeadershipLost, Disturbed) as lost:
            logger.warning("starting over", extra={"reason": first_reason(lost)})
        except* HistoryLost as lost:
            logger.warning("etcd has lost its history, all is written anew", extra={"reason": first_reason(lost)})
            self.etcd.forget()
            self._history_lost = True
        except* EtcdUnavailable as lost:
            self._say_unavailable(first_reason(lost))
        if self.ending:  # at this very moment: until Python 3.13 a TaskGroup tells of the failure only (gh-116720)
            raise asyncio.CancelledError
        if time.monotonic() - began < STEADY_S:
            raise ShortSpell

    async def _lead(self, lock: LeaderLock) -> None:
        self.etcd_state.enter("connecting")
        revision = await acquire(lock, self.etcd, on_wait=lambda: self.etcd_state.enter("standby"))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keep_leading(lock, self.config.leader_ttl_s))
            self.etcd_state.enter("listing")
            lookout = Lookout(lambda: self.desired.stir(now=asyncio.get_running_loop().time()))
            fence = Fence(self.etcd, revision, lookout)
            writer = Writer(
                self.etcd, fence, lookout, self.desired, self.progress, config=self.config, scope=self.scope
            )
            await writer.prepare(history_lost=self._history_lost)
            self._history_lost = False
            self._say_writing()
            if self.importer is not None and self.config.import_from is not None:
                tasks.create_task(self.importer.run(self.config.import_from, self.config))
            await writer.run()

    def _say_unavailable(self, reason: str) -> None:
        if not self.etcd_state.error:
            logger.warning("etcd is not there: retrying", extra={"etcd": self.config.etcd, "reason": reason})
        self.etcd_state.enter("connecting")
        self.etcd_state.error = reason

    def _say_writing(self) -> None:
        self.etcd_state.enter("writing")
        self.etcd_state.error = ""
        logger.info("leading", extra={"etcd": self.config.etcd, "revision": self.etcd.revision})


def make_source(config: AgentConfig) -> Source:
    """The one that is configured. Raises ConfigError if it cannot be used."""
    if config.manifests is not None:
        if not config.manifests.is_dir():
            raise ConfigError(f"manifests {config.manifests}: is not a folder: create it, or name another one")
        return ManifestSource(config.manifests)
    credentials = make_credentials(config)
    credentials.access()
    return KubernetesSource(credentials)


def make_credentials(config: AgentConfig) -> Credentials:
    return Credentials(kubeconfig=config.kubeconfig, context=config.context, in_cluster=config.in_cluster)


def first_reason(group: BaseExceptionGroup[BaseException]) -> str:
    """The text of the first error in a group of groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)
