"""The leases that published keys hang on: found again after a restart, so that nothing has to be written anew."""

import asyncio
from collections import Counter
from collections.abc import Iterable

from meshd.agent.etcd.connection import EtcdConnection, LeaseLost


async def adopt_or_grant(etcd: EtcdConnection, found: Iterable[int], ttl_s: int) -> int:
    """The live lease of that time to live that most of our keys hang on already, else a new one."""
    for lease, _ in Counter(lease for lease in found if lease).most_common(3):
        if await etcd.lease_ttl(lease) == ttl_s and await etcd.keep_alive(lease):
            return lease
    return await etcd.grant_lease(ttl_s)


async def keep_alive(etcd: EtcdConnection, lease: int, *, every_s: float) -> None:
    """Keeps a lease alive. Never returns; raises LeaseLost, or what the connection raises."""
    while True:
        await asyncio.sleep(every_s)
        if not await etcd.keep_alive(lease):
            raise LeaseLost(f"lease {lease:x} has run out")
