"""Health and metrics of a real proxy."""

import asyncio
import resource
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.etcd import Etcd
from tests.support.ports import free_port
from tests.support.proxy import Proxy, reader

pytestmark = pytest.mark.etcd


@pytest.fixture
def health() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def proxy_options(health: str) -> tuple[str, ...]:
    return (f"--health={health}",)


@pytest.fixture
def proxy(idle_proxy: Proxy) -> Proxy:
    return idle_proxy


def fetch(health: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{health}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_ready_once_etcd_was_read_and_then_even_without_it(etcd: Etcd, proxy: Proxy, health: str) -> None:
    etcd.stop()
    proxy.start()
    proxy.await_status(lambda status: bool(status["upstream"]["state"] == "away"))
    code, why = fetch(health, "/readyz")
    assert code == 503
    assert "not ready: etcd has not been read yet" in why
    assert fetch(health, "/healthz")[0] == 200
    etcd.start()
    proxy.await_synced()
    assert fetch(health, "/readyz") == (200, "ready\n")
    etcd.kill()
    proxy.await_status(lambda status: bool(status["upstream"]["state"] == "away"))
    code, why = fetch(health, "/readyz")
    assert code == 200
    assert "etcd away" in why


def metrics(health: str) -> dict[tuple[str, ...], float]:
    """Values by name and labels."""
    _, text = fetch(health, "/metrics")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics_count_what_happened(etcd: Etcd, proxy: Proxy, health: str) -> None:
    etcd.put("cilium/state/a", "1")
    proxy.start()
    proxy.await_synced()
    async with (
        reader(proxy, proxy.certificate("remote-c2")) as reading,
        reading.watch(b"cilium/state/", b"cilium/state0", start_revision=1) as watch,
    ):
        await watch.read()
        await watch.create(b"cilium/cache/")
        await reading.range(b"cilium/state/a")
        found = await asyncio.to_thread(metrics, health)
    assert found[("meshd_proxy_keys",)] == 1
    assert found[("meshd_proxy_revision",)] == 2
    assert found[("meshd_proxy_upstream_synced",)] == 1
    assert found[("meshd_proxy_upstream_lists_total",)] == 1
    assert found[("meshd_proxy_watchers",)] == 1
    assert found[("meshd_proxy_watch_answers_total",)] == 3
    assert found[("meshd_proxy_streams", "remote-c2")] == 1
    assert found[("meshd_proxy_ranges_total", "remote-c2")] == 1
    assert found[("meshd_proxy_refused_total", "etcdserver: permission denied")] == 1
    assert 89 * 86400 < found[("meshd_proxy_certificate_seconds_left",)] < 90 * 86400
    proxy.await_status(lambda status: bool(status["streams"] == 0))
    later = metrics(health)
    for name in ("meshd_proxy_watch_answers_total", "meshd_proxy_watch_answer_bytes_total"):
        assert later[(name,)] == found[(name,)]  # what a stream was told counts on when it has ended


@pytest.mark.parametrize(
    ("health", "why"),
    [("127.0.0.1", "must be IP:PORT"), ("127.0.0.1:99999", "must be IP:PORT"), ("1.2.3.4:1", "assign")],
)
def test_an_address_that_cannot_be_one_is_named(proxy: Proxy, health: str, why: str) -> None:
    proxy.start()
    assert proxy.stop_code() == 3
    log = proxy.log.read_text()
    assert f"--health: cannot listen on {health}: " in log
    assert why in log
    assert "Traceback" not in log


def test_address_in_use_is_named(proxy: Proxy, health: str, tmp_path: Path, etcd: Etcd) -> None:
    proxy.start()
    proxy.await_synced()
    second = Proxy(tmp_path / "second", etcd.url, options=(f"--health={health}",))
    second.start()
    assert second.stop_code() == 3
    assert f"--health: cannot listen on {health}: Address already in use\n" in second.log.read_text()
    third = Proxy(tmp_path / "third", etcd.url)
    third.address = proxy.address
    third.start()
    assert third.stop_code() == 3
    assert f"--listen: cannot listen on {proxy.address} (Address already in use)" in third.log.read_text()


def test_a_second_proxy_of_the_name_leaves_the_firsts_socket_alone(proxy: Proxy, etcd: Etcd) -> None:
    proxy.start()
    proxy.await_synced()
    second = Proxy(proxy.directory, etcd.url, certs=proxy.certs)
    second.start()
    assert second.stop_code() == 3
    assert f"proxy.lock is held by process {proxy.pid}: stop that one first, or give" in second.log.read_text()
    proxy.await_synced()


def test_the_process_may_open_as_many_files_as_it_is_allowed_to(proxy: Proxy) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
    try:
        proxy.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    proxy.await_synced()
    limits = Path(f"/proc/{proxy.pid}/limits").read_text().splitlines()
    (files,) = (line.split() for line in limits if line.startswith("Max open files"))
    assert files[3] == files[4] == str(hard)
    assert f"descriptors={hard}" in proxy.log.read_text()
