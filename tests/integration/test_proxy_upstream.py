"""What etcd notices of a proxy: one watch and nothing else, however many readers there are and whatever they ask."""

from contextlib import AsyncExitStack

import pytest

from tests.support.etcd import Etcd
from tests.support.proxy import Proxy, reader

pytestmark = pytest.mark.etcd

STATE, STATE_END = b"cilium/state/", b"cilium/state0"
_WATCHES = "etcd_debugging_mvcc_watcher_total"
_RANGES = 'grpc_server_started_total{grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"}'


async def test_readers_cost_etcd_nothing(etcd: Etcd, proxy: Proxy) -> None:
    revision = etcd.put_all({f"cilium/state/{number:02}": "1" for number in range(50)})
    certificate = proxy.certificate("remote-c2")
    assert etcd.metric(_WATCHES) == 1
    before = etcd.metric(_RANGES)
    async with AsyncExitStack() as stack:
        for _ in range(5):
            reading = await stack.enter_async_context(reader(proxy, certificate))
            for _ in range(4):
                watch = await stack.enter_async_context(reading.watch(STATE, STATE_END, start_revision=1))
                await watch.read_until(revision)
                page = await reading.range(STATE, STATE_END, limit=10)
                later = await reading.range(page.kvs[-1].key, STATE_END, revision=page.header.revision)
                assert (page.count, later.count) == (50, 41)
        assert etcd.metric(_WATCHES) == 1
        assert etcd.metric(_RANGES) == before
