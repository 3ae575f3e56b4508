"""A peer over its limits gets a clear answer, and the others do not notice."""

from pathlib import Path

import grpc
import grpc.aio
import pytest

from tests.support.proxy import Proxy, Reader, reader

pytestmark = pytest.mark.etcd

_CONFIG = """
limits:
  peer_streams: 2
  peer_watches: 3
  peer_requests_per_s: 1
  peer_requests_burst: 50
"""


@pytest.fixture
def proxy_options(tmp_path: Path) -> tuple[str, ...]:
    config = tmp_path / "proxy.yaml"
    config.write_text(_CONFIG)
    return (f"--config={config}",)


async def test_streams_and_watches(proxy: Proxy) -> None:
    async with (
        reader(proxy, proxy.certificate("remote-c2")) as greedy,
        reader(proxy, proxy.certificate("remote-c3")) as modest,
        greedy.watch(b"cilium/state/") as first,
        greedy.watch(b"cilium/state/"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async with greedy.watch(b"cilium/state/"):
                pass
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused.value.details() == "meshd: too many streams"
        assert not (await first.create(b"cilium/state/")).canceled
        over = await first.create(b"cilium/state/")
        assert over.canceled
        assert "too many watches" in over.cancel_reason
        async with modest.watch(b"cilium/state/") as watch:
            assert not (await watch.create(b"cilium/state/")).canceled
    refused_so_far = {"meshd: too many streams": 1, "meshd: too many watches": 1}
    status = proxy.await_status(lambda status: status["watchers"] == 0)
    assert status["refused"] == refused_so_far
    assert [peer["watches"] for peer in status["peers"]] == [0, 0]


async def ask_often(reading: Reader, times: int) -> None:
    for _ in range(times):
        await reading.range(b"cilium/state/a")


async def test_requests_per_second(proxy: Proxy) -> None:
    async with (
        reader(proxy, proxy.certificate("remote-c2")) as greedy,
        reader(proxy, proxy.certificate("remote-c3")) as modest,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask_often(greedy, 500)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused.value.details() == "meshd: too many requests per second"
        await modest.range(b"cilium/state/a")


async def test_a_request_that_is_too_big(proxy: Proxy) -> None:
    async with reader(proxy, proxy.certificate("remote-c2")) as reading:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await reading.range(b"cilium/state/" + b"x" * (1 << 20))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await reading.range(b"cilium/state/a")


def test_unknown_limits_are_named(proxy: Proxy, tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text("limits: {peer_stream: 2}")
    bad = Proxy(tmp_path / "bad", "http://127.0.0.1:1", options=(f"--config={config}",))
    bad.start()
    assert bad.stop_code() == 3
    assert "limits.peer_stream" in bad.log.read_text()
