"""Being the one agent that writes: the leader lock, taken and kept in a thread, because etcd3 blocks."""

import asyncio
import logging
from collections.abc import Callable

from meshd.agent.etcd.connection import EtcdConnection, EtcdUnavailable
from meshd.agent.etcd.etcd3_client import LeaderLock, LockUnavailable
from meshd.agent.etcd.transactions import LeadershipLost
from wire import keys

logger = logging.getLogger(__name__)

#: A standby looks this often whether the lock is free, s.
POLL_S = 0.2


async def acquire(lock: LeaderLock, etcd: EtcdConnection, *, on_wait: Callable[[], None]) -> int:
    """Waits for the lock; returns the revision at which it was taken.

    `on_wait` is called when another agent is seen to have it. Raises EtcdUnavailable.
    """
    waited = False
    while True:
        leader = await etcd.get(keys.LEADER)
        if leader is None or leader.value == lock.token:
            try:
                if (revision := await asyncio.to_thread(lock.try_acquire)) is not None:
                    return revision
            except LockUnavailable as error:
                raise EtcdUnavailable(str(error)) from error
        elif not waited:
            waited = True
            on_wait()
            logger.info("standing by", extra={"leader": leader.value.decode(errors="replace")})
        await asyncio.sleep(POLL_S)


async def keep_leading(lock: LeaderLock, ttl_s: int) -> None:
    """Keeps the lock. Never returns; raises LeadershipLost or EtcdUnavailable."""
    while True:
        await asyncio.sleep(ttl_s / 4)
        try:
            if not await asyncio.to_thread(lock.refresh):
                raise LeadershipLost("the leader lock has run out")
        except LockUnavailable as error:
            raise EtcdUnavailable(str(error)) from error


async def release(lock: LeaderLock) -> None:
    """Lets another agent have it at once, if etcd can be told."""
    try:
        await asyncio.to_thread(lock.release)
    except LockUnavailable as error:
        logger.info("the leader lock runs out by itself", extra={"reason": error})
    finally:
        lock.close()
