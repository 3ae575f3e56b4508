"""The audit log of a real proxy: who opened, what they watched, what was refused."""

import re

import grpc.aio
import pytest

from tests.support.etcd import Etcd
from tests.support.proxy import Proxy, Reader, reader

pytestmark = pytest.mark.etcd


def audit_lines(proxy: Proxy) -> list[str]:
    """Of peers; on a busy machine gRPC may leave in the middle of a handshake and come again, which is told too."""
    return [line for line in proxy.log.read_text().splitlines() if "meshd.audit" in line and " peer=" in line]


async def test_a_stream_has_a_line_at_each_end(etcd: Etcd, proxy: Proxy) -> None:
    async with reader(proxy, proxy.certificate("remote-c2")) as reading:
        async with reading.watch(b"cilium/state/", b"cilium/state0") as watch:
            await watch.create(b"cilium/cache/")
            etcd.put("cilium/state/a", "1")
            assert (await watch.read()).events
        proxy.await_status(lambda status: status["streams"] == 0)
    opened, refused, ended = audit_lines(proxy)
    assert re.search(r"stream opened peer=remote-c2 role=remote address=ipv4\S*:\d+", opened)
    assert "request refused peer=remote-c2" in refused
    assert "key=cilium/cache/ reason='etcdserver: permission denied'" in refused
    assert re.search(r"stream ended peer=remote-c2 .*reason='the reader left' seconds=\S+ watches=1", ended)
    assert re.search(r"watched=cilium/state/ answers=3 bytes=\d+", ended)


async def refuse_often(reading: Reader, times: int) -> None:
    for _ in range(times):
        with pytest.raises(grpc.aio.AioRpcError):
            await reading.range(b"cilium/cache/\n\xff")


async def test_refusals_do_not_flood_the_log(proxy: Proxy) -> None:
    async with reader(proxy, proxy.certificate("remote-c2")) as reading:
        await refuse_often(reading, 300)
    lines = audit_lines(proxy)
    assert 50 <= len(lines) < 200
    assert r"cilium/cache/\n\\xff" in lines[0]  # one line, whatever the key holds
    assert proxy.status()["refused"] == {"etcdserver: permission denied": 300}


async def test_ranges_are_told_and_do_not_flood_the_log(etcd: Etcd, proxy: Proxy) -> None:
    etcd.put_all({f"cilium/state/ip/v1/default/10.0.0.{number}": "x" for number in range(50)})
    for name in ("remote-c2", "local-c1"):
        async with reader(proxy, proxy.certificate(name)) as reading:
            await reading.range(b"cilium/cluster-config/c1")
            if name == "remote-c2":
                for number in range(300):  # each page of a list begins elsewhere
                    await reading.range(b"cilium/state/ip/v1/default/10.0.0.%d" % number, b"cilium/state/ip/v10")
    read = [line.partition("meshd.audit: ")[2] for line in audit_lines(proxy)]
    assert read == [
        "range read peer=remote-c2 role=remote keys=cilium/cluster-config/c1",
        "range read peer=remote-c2 role=remote keys=cilium/state/ip/v1",
        "range read peer=local-c1 role=local keys=cilium/cluster-config/c1",
    ]
