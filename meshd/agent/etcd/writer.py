"""The writer: one spell of being the one that writes, from what is found in etcd to the first thing that fails.

After a failure everything is listed again and compared; nothing is assumed of a write whose answer was not heard.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress

from meshd.agent.etcd.beacon import canary_keys, config_value, timestamp
from meshd.agent.etcd.connection import EtcdConnection, EtcdRefused
from meshd.agent.etcd.holdings import Holdings, list_holdings
from meshd.agent.etcd.leases import adopt_or_grant, keep_alive
from meshd.agent.etcd.ledger import MAX_TRANSACTION, Write
from meshd.agent.etcd.lookout import WATCHED, Change, Lookout
from meshd.agent.etcd.numbers import Numbers
from meshd.agent.etcd.ownership import check_ownership
from meshd.agent.etcd.progress import Desired, Progress
from meshd.agent.etcd.repair import put_right
from meshd.agent.etcd.transactions import Fence
from meshd.agent.settings import AgentConfig
from wire import keys
from wire.codec import Scope
from wire.proto import kv_pb2

logger = logging.getLogger(__name__)

#: Objects of a kind that are computed in one go, so that the loop is never held up for long.
CHUNK = 1000

#: How long others may have their way after something of theirs was undone, s.
REPAIR_S = 1.0

#: Keys in one round, transactions of it that are in flight at once, and bytes in one transaction (etcd takes 1.5 MiB).
ROUND, IN_FLIGHT, MAX_BYTES = 4096, 4, 1 << 20


class Writer:
    """`prepare`, then `run`; both raise what the connection raises, and LeadershipLost."""

    def __init__(
        self,
        etcd: EtcdConnection,
        fence: Fence,
        lookout: Lookout,
        desired: Desired,
        progress: Progress,
        config: AgentConfig,
        scope: Scope,
    ) -> None:
        self._etcd = etcd
        self._fence = fence
        self._lookout = lookout
        self._listed_at = 0
        self._desired = desired
        self._progress = progress
        self._config = config
        self._scope = scope
        self._lease = self._beacon_lease = 0
        self._beacon: dict[str, tuple[bytes, int]] = {}
        self._numbers = Numbers(fence, desired.publisher, desired.identities, scope, config.identity_grace_s)
        self._progress.announced.clear()
        self._progress.refused = {}

    async def prepare(self, *, history_lost: bool) -> None:
        """Adopts what stands in etcd. Raises NotOurs if it is another cluster's."""
        desired, config = self._desired, self._config
        await self._etcd.get(keys.LEADER)
        self._listed_at = self._etcd.revision
        holdings = await list_holdings(self._etcd, desired.ledger.prefixes, self._scope)
        check_ownership(holdings.configs, cluster=config.cluster, cluster_id=config.cluster_id)
        leases = (lease for _, lease in holdings.records.values())
        self._lease = await adopt_or_grant(self._etcd, leases, config.lease_ttl_s)
        leases = (lease for _, lease in holdings.beacon.values())
        self._beacon_lease = await adopt_or_grant(self._etcd, leases, config.beacon_ttl_s)
        self._beacon = holdings.beacon
        await self._show_config()
        await self._keep_generation(holdings, history_lost=history_lost)
        if desired.identities.restore(holdings.allocations) or len(desired.identities):
            desired.publisher.restored()
        held = {key: value if lease == self._lease else b"" for key, (value, lease) in holdings.records.items()}
        desired.ledger.hold(held)
        for key, reason in holdings.odd.items():
            logger.error("a record of our own cannot be read: delete it", extra={"key": key, "reason": reason})

    async def run(self) -> None:
        """Writes what changes and keeps everything alive. Never returns."""
        async with asyncio.TaskGroup() as tasks:
            # More often than the leases need: so a lost one is soon noticed.
            every_s = min(self._config.heartbeat_s, self._config.beacon_ttl_s / 3)
            tasks.create_task(keep_alive(self._etcd, self._lease, every_s=every_s))
            tasks.create_task(keep_alive(self._etcd, self._beacon_lease, every_s=every_s))
            tasks.create_task(self._beat())
            tasks.create_task(self._write_changes())
            tasks.create_task(self._look_out())

    async def _show_config(self) -> None:
        key = keys.cluster_config(self._config.cluster)
        value = config_value(self._config.cluster_id, max_clusters=self._config.max_clusters)
        found = await self._etcd.get(key)
        if found is None or (found.value, found.lease) != (value, self._beacon_lease):
            await self._fence.write([Write(key, value)], self._beacon_lease)

    async def _keep_generation(self, holdings: Holdings, *, history_lost: bool) -> None:
        self._progress.generation = holdings.generation
        if history_lost or not holdings.generation:
            self._progress.generation = secrets.token_hex(16)
            await self._fence.write([Write(keys.GENERATION, self._progress.generation.encode())], 0)

    async def _beat(self) -> None:
        """The heartbeat; and the cluster-config is put right if somebody else has changed it."""
        while True:
            await self._fence.write([Write(keys.HEARTBEAT, timestamp())], self._beacon_lease)
            await asyncio.sleep(self._config.heartbeat_s)
            await self._show_config()

    async def _write_changes(self) -> None:
        self._desired.changed_at = asyncio.get_running_loop().time()
        self._desired.changed.set()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._config.identity_grace_s / 10):
                    await self._desired.changed.wait()
            changed, since = self._desired.changed.is_set(), self._desired.changed_at
            self._desired.changed.clear()
            await self._put_right()
            await self._flush()
            if changed:
                self._progress.lag_s = asyncio.get_running_loop().time() - since
            if self._desired.synced:
                if not self._progress.announced.is_set():
                    await self._announce()
                if await self._numbers.free_unused(now=asyncio.get_running_loop().time()):
                    await self._flush()

    async def _flush(self) -> None:
        """Writes until nothing differs; what changes meanwhile joins in.

        Nothing before the sources have told all: a service of which some pods are known would take the place of the
        whole one that an earlier run has written.
        """
        publisher, ledger = self._desired.publisher, self._desired.ledger
        while self._desired.synced:
            if publisher.is_dirty:
                began = time.perf_counter()
                ledger.want(publisher.compute(CHUNK))
                self._progress.computing_s += time.perf_counter() - began
                await asyncio.sleep(0)  # leases have to be kept alive meanwhile
                continue
            if labels := publisher.wanted():
                began = time.perf_counter()
                await self._numbers.settle(labels)
                self._progress.writing_s += time.perf_counter() - began
                continue
            if self._desired.whole:
                ledger.complete()
            if not (writes := ledger.take(ROUND)):
                return
            began = time.perf_counter()
            await self._write(writes)
            self._progress.writing_s += time.perf_counter() - began

    async def _look_out(self) -> None:
        """Follows what happens to our keys. What others do to them is undone at once, but not at once again: another
        writer would undo that as well.
        """
        (start, _), (_, end) = map(keys.interval, WATCHED)
        async for events in self._etcd.watch(start, end, after=self._listed_at):
            for event in events:
                entry = event.kv
                if not self._lookout.is_own(entry.mod_revision):
                    value = None if event.type == kv_pb2.Event.DELETE else entry.value
                    key = entry.key.decode(errors="replace")
                    self._lookout.saw(Change(key, value, entry.lease, entry.mod_revision))
            if events:
                self._lookout.passed(events[-1].kv.mod_revision)
            if self._lookout.is_strange:
                await asyncio.sleep(REPAIR_S)

    async def _put_right(self) -> None:
        """Undoes what others have done to our keys. Raises Disturbed."""
        changes = self._lookout.take()
        beacon = put_right(changes, self._desired.ledger, self._progress, config=self._config, lease=self._lease)
        config = keys.cluster_config(self._config.cluster)
        if config in beacon:
            await self._show_config()
        canaries = beacon - {config}
        for key in canaries:
            self._beacon.pop(key, None)
        if canaries and self._progress.announced.is_set():
            await self._announce()

    async def _announce(self) -> None:
        """Everything that was known when the sources had told all stands in etcd: the canaries say so."""
        missing = [
            Write(key, timestamp())
            for key in canary_keys(self._config.cluster)
            if self._beacon.get(key, (b"", 0))[1] != self._beacon_lease
        ]
        if missing:
            await self._fence.write(missing, self._beacon_lease)
            self._beacon |= {write.key: (write.value or b"", self._beacon_lease) for write in missing}
        self._progress.announced.set()
        logger.info("published", extra=self._desired.ledger.count())

    async def _write(self, writes: Sequence[Write]) -> None:
        limit = asyncio.Semaphore(IN_FLIGHT)

        async def write(batch: Sequence[Write]) -> None:
            async with limit:
                await self._write_batch(batch)

        batches = split_batches(writes)
        if len(batches) == 1:
            await self._write_batch(batches[0])
            return
        async with asyncio.TaskGroup() as tasks:
            for batch in batches:
                tasks.create_task(write(batch))

    async def _write_batch(self, batch: Sequence[Write]) -> None:
        """If etcd refuses one write for what it is (too large), that one alone is given up."""
        try:
            await self._fence.write(batch, self._lease)
        except EtcdRefused as error:
            if len(batch) > 1:
                for write in batch:
                    await self._write_batch([write])
                return
            logger.error("etcd refuses a record", extra={"key": batch[0].key, "reason": error})
            self._progress.refused[batch[0].key] = str(error)
            return
        self._progress.transactions += 1
        self._progress.keys += len(batch)
        for write in batch:
            self._progress.refused.pop(write.key, None)
            self._desired.ledger.written(write)


def split_batches(writes: Sequence[Write]) -> list[list[Write]]:
    """In order, each small enough for one transaction."""
    batches: list[list[Write]] = []
    size = MAX_BYTES
    for write in writes:
        length = len(write.key) + len(write.value or b"") + 32
        if size + length > MAX_BYTES or len(batches[-1]) == MAX_TRANSACTION:
            batches.append([])
            size = 0
        batches[-1].append(write)
        size += length
    return batches
