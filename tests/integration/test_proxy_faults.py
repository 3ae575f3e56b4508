"""What readers see when the etcd behind a proxy, or the proxy itself, goes away and comes back."""

import asyncio
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from tests.support.etcd import Etcd, etcdctl_environment
from tests.support.ports import free_port
from tests.support.proxy import Proxy, WatchCall, reader

pytestmark = pytest.mark.etcd

STATE, STATE_END = b"cilium/state/", b"cilium/state0"
HEARTBEAT, HEARTBEAT_END = b"cilium/.heartbeat", b"cilium/.heartbeau"


@pytest.fixture
def make_proxy(tmp_path: Path, etcd: Etcd) -> Iterator[Callable[[], Proxy]]:
    made: list[Proxy] = []

    def make() -> Proxy:
        made.append(Proxy(tmp_path / f"proxy{len(made)}", etcd.url))
        return made[-1]

    yield make
    for proxy in made:
        proxy.kill()


@pytest.fixture
def proxy(make_proxy: Callable[[], Proxy]) -> Proxy:
    return make_proxy()


def state_of(status: dict[str, dict[str, str]]) -> str:
    return status["upstream"]["state"]


def put_many(etcd: Etcd, count: int) -> list[int]:
    return [etcd.put(f"cilium/state/{number % 7}", str(number)) for number in range(count)]


async def read_revisions(watch: WatchCall, last: int) -> list[int]:
    answers = await watch.read_until(last)
    return [event.kv.mod_revision for answer in answers for event in answer.events]


async def test_etcd_that_is_not_there_yet_is_said_once_and_awaited(etcd: Etcd, proxy: Proxy) -> None:
    revision = etcd.put("cilium/state/a", "1")
    etcd.kill()
    proxy.start()
    proxy.await_status(lambda status: state_of(status) == "away")
    async with reader(proxy, proxy.certificate("remote-c2")) as reading:
        asked = asyncio.ensure_future(reading.range(STATE, STATE_END))
        await asyncio.to_thread(etcd.start)
        assert (await asked).header.revision >= revision  # a request waits for the first list, for a while
    proxy.await_synced()
    assert proxy.log.read_text().count("etcd is away") == 1
    assert "Traceback" not in proxy.log.read_text()


async def test_what_is_known_is_served_while_etcd_is_away_and_the_watch_goes_on(etcd: Etcd, proxy: Proxy) -> None:
    first = put_many(etcd, 5)
    proxy.start()
    remote = proxy.certificate("remote-c2")
    async with reader(proxy, remote) as reading, reading.watch(STATE, STATE_END, start_revision=first[0]) as watch:
        assert await read_revisions(watch, first[-1]) == first
        async with reading.watch(HEARTBEAT, HEARTBEAT_END) as heartbeat:
            etcd.kill()
            status = proxy.await_status(lambda status: state_of(status) == "away")
            assert status["upstream"]["problem"]
            before = await reading.range(STATE, STATE_END)
            assert (before.count, before.header.revision) == (5, first[-1])
            assert await heartbeat.read_all() == []  # silence: none is invented
            etcd.start()
            second = put_many(etcd, 5)
            beat = etcd.put(HEARTBEAT, "now")
            assert await read_revisions(watch, second[-1]) == second
            assert await read_revisions(heartbeat, beat) == [beat]
            after = await reading.range(STATE, STATE_END)
    assert after.header.cluster_id == before.header.cluster_id
    status = proxy.await_status(lambda status: state_of(status) == "synced")
    assert (status["upstream"]["lists"], status["upstream"]["resumes"]) == (1, 1)


async def test_a_reader_goes_on_at_a_restarted_proxy_by_revision(etcd: Etcd, proxy: Proxy) -> None:
    first = put_many(etcd, 5)
    proxy.start()
    remote = proxy.certificate("remote-c2")
    async with reader(proxy, remote) as reading:
        async with reading.watch(STATE, STATE_END, start_revision=first[0]) as watch:
            heard = await read_revisions(watch, first[-1])
        cluster_id = (await reading.range(STATE)).header.cluster_id
    proxy.kill()
    missed = put_many(etcd, 5)
    proxy.start()
    proxy.await_synced()
    async with reader(proxy, remote) as reading:
        assert (await reading.range(STATE)).header.cluster_id == cluster_id
        async with reading.watch(STATE, STATE_END, start_revision=heard[-1] + 1) as watch:
            later = put_many(etcd, 5)
            heard += await read_revisions(watch, later[-1])
    assert heard == first + missed + later


def test_etcdctls_watch_survives_a_proxy_restart(etcd: Etcd, proxy: Proxy) -> None:
    proxy.start()
    proxy.await_synced()
    command = proxy.etcdctl_command(proxy.certificate("remote-c2"), "watch", "--prefix", "cilium/state/")
    watch = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=etcdctl_environment())
    try:
        assert watch.stdout is not None
        proxy.await_status(lambda status: status["watchers"] == 1)
        etcd.put("cilium/state/a", "before")
        assert [watch.stdout.readline().strip() for _ in range(3)][-1] == "before"
        assert proxy.stop() == 0
        etcd.put("cilium/state/a", "meanwhile")
        proxy.start()
        proxy.await_status(lambda status: status["watchers"] == 1)
        etcd.put("cilium/state/a", "after")
        assert [watch.stdout.readline().strip() for _ in range(6)][2::3] == ["meanwhile", "after"]
    finally:
        watch.kill()
        watch.communicate()


async def assert_stream_ends(watch: WatchCall, old_cluster_id: int) -> None:
    """The watch is cancelled under a new cluster id, then the stream ends: no reader can go on unawares."""
    answer = await watch.read()
    while answer.events:
        answer = await watch.read()
    assert answer.canceled
    assert answer.compact_revision > 0
    assert answer.header.cluster_id not in (0, old_cluster_id)
    assert await watch.code() is grpc.StatusCode.UNAVAILABLE


async def test_another_etcd_is_another_cluster_id(etcd: Etcd, proxy: Proxy) -> None:
    put_many(etcd, 5)
    proxy.start()
    async with reader(proxy, proxy.certificate("remote-c2")) as reading, reading.watch(STATE, STATE_END) as watch:
        before = (await reading.range(STATE, STATE_END)).header
        etcd.kill()
        etcd.wipe()
        etcd.start()
        revision = etcd.put("cilium/state/new", "1")
        await assert_stream_ends(watch, before.cluster_id)
        after = await reading.range(STATE, STATE_END)
        assert [kv.key for kv in after.kvs] == [b"cilium/state/new"]
        assert after.header.cluster_id != before.cluster_id
        assert after.header.revision == revision


async def test_a_new_generation_is_another_cluster_id_that_all_proxies_agree_on(
    etcd: Etcd, make_proxy: Callable[[], Proxy]
) -> None:
    etcd.put("meshd/v1/generation", "one")
    proxies = [make_proxy(), make_proxy()]
    for proxy in proxies:
        proxy.start()
    first, second = proxies
    async with (
        reader(first, first.certificate("daemon-c1")) as one,
        reader(second, second.certificate("daemon-c1")) as two,
        one.watch(STATE, STATE_END) as watch,
    ):
        before = (await one.range(STATE)).header.cluster_id
        assert (await two.range(STATE)).header.cluster_id == before
        etcd.put("meshd/v1/generation", "one")  # the same again means nothing
        revision = etcd.put("cilium/state/a", "1")
        assert await read_revisions(watch, revision) == [revision]
        revision = etcd.put("meshd/v1/generation", "two")
        await assert_stream_ends(watch, before)
        for proxy in proxies:
            proxy.await_status(lambda status: status["upstream"]["lists"] == 2)
        assert "etcd is away" not in first.log.read_text()
        assert first.log.read_text().count("etcd must be listed anew") == 1
        after = (await one.range(STATE)).header.cluster_id
        assert (await two.range(STATE)).header.cluster_id == after != before
        async with two.watch(STATE, STATE_END, start_revision=revision) as resumed:
            assert (await resumed.read()).compact_revision == revision + 1  # nothing from before is served


async def test_lower_revisions_are_never_taken_for_the_same_history(etcd: Etcd, proxy: Proxy) -> None:
    etcd.put("cilium/state/a", "1")
    snapshot = etcd.directory / "copy"
    etcd.stop()
    shutil.copytree(etcd.directory / "data", snapshot)
    etcd.start()
    put_many(etcd, 20)
    proxy.start()
    async with reader(proxy, proxy.certificate("remote-c2")) as reading, reading.watch(STATE, STATE_END) as watch:
        etcd.kill()
        proxy.await_status(lambda status: state_of(status) == "away")
        etcd.wipe()
        shutil.copytree(snapshot, etcd.directory / "data")
        etcd.start()
        answer = await watch.read()
        assert answer.canceled
        assert answer.compact_revision > 0
        assert await watch.code() is grpc.StatusCode.UNAVAILABLE
        assert [kv.key for kv in (await reading.range(STATE, STATE_END)).kvs] == [b"cilium/state/a"]


async def test_a_restored_etcd_that_was_written_to_since_is_no_continuation(etcd: Etcd, proxy: Proxy) -> None:
    """Its id is the same, its revision higher; only the generation, which the agent renews, tells."""
    etcd.put("meshd/v1/generation", "one")
    etcd.put("cilium/state/a", "1")
    snapshot = etcd.directory / "copy"
    etcd.stop()
    shutil.copytree(etcd.directory / "data", snapshot)
    etcd.start()
    lost = put_many(etcd, 20)
    proxy.start()
    async with reader(proxy, proxy.certificate("remote-c2")) as reading, reading.watch(STATE, STATE_END) as watch:
        before = (await reading.range(STATE)).header
        assert before.revision == lost[-1]
        etcd.stop()
        etcd.wipe()
        shutil.copytree(snapshot, etcd.directory / "data")
        own_port, etcd.port = etcd.port, free_port()
        etcd.start()  # where the proxy does not see it
        etcd.put("meshd/v1/generation", "two")
        while etcd.put("cilium/state/b", "2") <= lost[-1]:
            pass
        etcd.stop()
        etcd.port = own_port
        etcd.start()
        await assert_stream_ends(watch, before.cluster_id)
        after = await reading.range(STATE, STATE_END)
        assert [kv.key for kv in after.kvs] == [b"cilium/state/a", b"cilium/state/b"]
        assert after.header.cluster_id != before.cluster_id


async def test_compaction_that_overtakes_the_proxy_cancels_without_inventing(etcd: Etcd, proxy: Proxy) -> None:
    put_many(etcd, 3)
    proxy.start()
    async with reader(proxy, proxy.certificate("remote-c2")) as reading, reading.watch(STATE, STATE_END) as watch:
        before = (await reading.range(STATE)).header.cluster_id
        etcd.stop()
        own_port, etcd.port = etcd.port, free_port()
        etcd.start()  # where the proxy does not see it
        missed = put_many(etcd, 10)
        etcd.compact(missed[-1])
        etcd.stop()
        etcd.port = own_port
        etcd.start()
        answer = await watch.read()
        assert answer.canceled
        assert answer.compact_revision == missed[-1] + 1
        assert answer.header.cluster_id == before
        await watch.create(STATE, STATE_END, start_revision=missed[-1] + 1)  # the stream itself lives on
        revision = etcd.put("cilium/state/a", "1")
        assert await read_revisions(watch, revision) == [revision]
        assert (await reading.range(STATE, STATE_END)).count == 8


async def test_a_revision_ahead_is_waited_for(etcd: Etcd, proxy: Proxy) -> None:
    """A reader that comes from another proxy may have seen a revision that this one has not heard of yet."""
    revision = etcd.put("cilium/state/a", "1")
    proxy.start()
    proxy.await_synced()
    async with reader(proxy, proxy.certificate("remote-c2")) as reading:
        async with reading.watch(STATE, STATE_END) as watch:
            asked = asyncio.ensure_future(reading.range(STATE, STATE_END, revision=revision + 1))
            assert await watch.read_all() == []
            etcd.put("cilium/state/b", "2")
        assert (await asked).count == 2
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await reading.range(STATE, STATE_END, revision=revision + 100)
        assert "future revision" in str(refused.value.details())
