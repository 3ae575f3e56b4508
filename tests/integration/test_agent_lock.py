"""The leader lock with a real etcd, through etcd3."""

from collections.abc import Iterator

import pytest

from meshd.agent.etcd.etcd3_client import LeaderLock, LockUnavailable
from meshd.etcd import EtcdSettings
from tests.support.agent import eventually
from tests.support.etcd import Etcd
from wire import keys

pytestmark = pytest.mark.etcd


@pytest.fixture
def locks(etcd: Etcd) -> Iterator[list[LeaderLock]]:
    made = [LeaderLock(EtcdSettings(etcd=etcd.url), holder=f"agent-{number}", ttl_s=2) for number in range(2)]
    yield made
    for lock in made:
        lock.close()


def test_only_one_holds_it(locks: list[LeaderLock], etcd: Etcd) -> None:
    first, second = locks
    revision = first.try_acquire()
    assert revision is not None
    assert (etcd.get(keys.LEADER) or b"").startswith(b"agent-0 ")
    assert second.try_acquire() is None
    assert second.refresh() is False
    assert first.refresh() is True
    second.release()
    first.release()
    assert etcd.get(keys.LEADER) is None
    later = second.try_acquire()
    assert later is not None
    assert later > revision


def test_it_runs_out_by_itself(locks: list[LeaderLock]) -> None:
    first, second = locks
    first.try_acquire()
    eventually(lambda: second.try_acquire() is not None)
    assert first.refresh() is False


def test_what_is_held_stays_held_over_an_outage(locks: list[LeaderLock], etcd: Etcd) -> None:
    first, second = locks
    revision = first.try_acquire()
    etcd.kill()
    etcd.start()
    eventually(lambda: answers(first))
    assert second.try_acquire() is None
    assert first.try_acquire() == revision
    assert first.refresh() is True


def answers(lock: LeaderLock) -> bool:
    try:
        return lock.refresh()
    except LockUnavailable:
        return False


def test_who_does_not_get_it_leaves_no_lease_behind(locks: list[LeaderLock], etcd: Etcd) -> None:
    first, second = locks
    first.try_acquire()
    for _ in range(3):
        second.try_acquire()
    assert len(etcd.etcdctl("lease", "list").split()) == len(["found", "1", "leases"]) + 1


def test_without_etcd_it_says_so(locks: list[LeaderLock], etcd: Etcd) -> None:
    locks[0].try_acquire()
    etcd.stop()
    for call in (locks[0].refresh, locks[0].release, locks[1].try_acquire):
        with pytest.raises(LockUnavailable):
            call()
