"""Who gets in at a real proxy, and what they may do there: real TLS, real etcdctl."""

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from certs.authority import init_ca
from certs.leaves import issue
from certs.names import Leaf
from tests.support.etcd import Etcd, etcdctl_environment
from tests.support.proxy import Proxy, Reader, reader

pytestmark = pytest.mark.etcd


def test_etcdctl_reads_what_the_remote_role_may_and_writes_nothing(etcd: Etcd, proxy: Proxy) -> None:
    etcd.put_all({"cilium/state/a": "1", "cilium/cache/a": "no", "meshd/v1/a": "no", "cilium/cluster-config/c1": "{}"})
    revision = etcd.put("cilium/state/b", "2")
    proxy.await_status(lambda status: bool(status["revision"] == revision))
    remote = proxy.certificate("remote-c2")
    assert proxy.etcdctl(remote, "get", "--prefix", "cilium/state/").stdout.split() == [
        "cilium/state/a",
        "1",
        "cilium/state/b",
        "2",
    ]
    assert "{}" in proxy.etcdctl(remote, "get", "cilium/cluster-config/c1").stdout
    for denied in (["cilium/"], ["cilium/cache/"], ["meshd/"], ["cilium/cluster-config/"], [""]):
        refused = proxy.etcdctl(remote, "get", "--prefix", *denied)
        assert refused.returncode != 0
        assert "etcdserver: permission denied" in refused.stderr
    for write in (["put", "cilium/state/a", "x"], ["del", "cilium/state/a"], ["lease", "grant", "10"]):
        assert proxy.etcdctl(remote, *write).returncode != 0
    assert etcd.get("cilium/state/a") == b"1"
    assert etcd.put("other", "") == revision + 1  # nothing came through


def test_etcdctl_watches_a_prefix(etcd: Etcd, proxy: Proxy) -> None:
    revision = etcd.put("cilium/state/a", "1")
    remote = proxy.certificate("remote-c2")
    command = proxy.etcdctl_command(remote, "watch", "--prefix", "cilium/state/", f"--rev={revision}")
    watch = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=etcdctl_environment())
    try:
        assert watch.stdout is not None
        assert [watch.stdout.readline().strip() for _ in range(3)] == ["PUT", "cilium/state/a", "1"]
        etcd.delete("cilium/state/a")
        assert [watch.stdout.readline().strip() for _ in range(2)] == ["DELETE", "cilium/state/a"]
    finally:
        watch.kill()
        watch.communicate()
    denied = proxy.etcdctl(remote, "watch", "--prefix", "cilium/")
    assert "permission denied" in denied.stderr


@pytest.mark.parametrize(
    ("leaf", "allowed", "denied"),
    [
        ("remote", "cilium/state/", "cilium/cache/"),
        ("local-c1", "cilium/cache/", "cilium/state/"),
        ("daemon-c1", "meshd/v1/", "registry/"),
        ("admin-c1", "registry/", None),
        ("daemon-c2", None, "cilium/state/"),
    ],
)
async def test_roles(proxy: Proxy, leaf: str, allowed: str | None, denied: str | None) -> None:
    async with reader(proxy, proxy.certificate(leaf)) as reading:
        if allowed:
            await reading.range(allowed.encode(), allowed[:-1].encode() + b"0")
        if denied:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await reading.range(denied.encode(), denied[:-1].encode() + b"0")
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert refused.value.details() == "etcdserver: permission denied"
    if denied:
        status = proxy.status()
        assert status["refused"] == {"etcdserver: permission denied": 1}
        assert status["refusals"][0]["peer"] == leaf
        assert status["refusals"][0]["key"] == denied


async def assert_not_let_in(proxy: Proxy, certificate: Path | None, ca: Path | None = None) -> None:
    async with proxy.channel(certificate, ca=ca) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await Reader(channel, patient=False).range(b"cilium/state/a")
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_bad_certificates_are_refused(tmp_path: Path, proxy: Proxy) -> None:
    stranger_ca = init_ca(tmp_path / "stranger", now=datetime.now(UTC))
    stranger = issue(stranger_ca, Leaf.parse("remote-c2"), tmp_path / "stranger", now=datetime.now(UTC))
    own_ca = tmp_path / "proxy/certs/ca/ca.crt"
    await assert_not_let_in(proxy, stranger, own_ca)
    await assert_not_let_in(proxy, proxy.certificate("remote-c3", age=timedelta(days=100)))
    await assert_not_let_in(proxy, proxy.certificate("remote-c4", age=timedelta(days=-3)))  # not yet valid
    await assert_not_let_in(proxy, None)
    # Who is refused learns it a moment before the proxy has written why; gRPC may have tried again, and left half-way.
    reasons = {"unknown CA", "expired", "not yet valid", "no certificate"}
    proxy.await_status(lambda status: reasons <= status["handshakes_failed"].keys())
    for reason in ("unable to get local issuer", "has expired", "not yet valid", "PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        assert reason in proxy.log.read_text()
    async with reader(proxy, proxy.certificate("remote-c5")) as reading:  # and a good one still gets in
        await reading.range(b"cilium/state/a")


async def test_status_is_answered_to_who_has_a_role(etcd: Etcd, proxy: Proxy) -> None:
    revision = etcd.put("cilium/state/a", "1")
    proxy.await_status(lambda status: bool(status["revision"] == revision))
    asked = proxy.etcdctl(proxy.certificate("remote-c2"), "endpoint", "status", "--write-out=json")
    [endpoint] = json.loads(asked.stdout)
    [own] = json.loads(etcd.etcdctl("endpoint", "status", "--write-out=json"))
    assert endpoint["Status"]["version"] == own["Status"]["version"]
    assert endpoint["Status"]["leader"] == own["Status"]["leader"]
    assert endpoint["Status"]["header"]["revision"] == revision
    nobody = proxy.etcdctl(proxy.certificate("daemon-c2"), "endpoint", "status")
    assert "permission denied" in nobody.stderr


async def test_nothing_that_writes_exists(proxy: Proxy) -> None:
    methods = ["KV/Put", "KV/DeleteRange", "KV/Txn", "KV/Compact", "Lease/LeaseGrant", "Auth/Authenticate"]
    methods += ["Maintenance/Snapshot", "Cluster/MemberRemove"]
    channel: Any
    async with proxy.channel(proxy.certificate("admin-c1")) as channel:
        for method in methods:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(f"/etcdserverpb.{method}")(b"", timeout=20)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_bytes_that_are_no_request_cost_one_answer(etcd: Etcd, proxy: Proxy) -> None:
    channel: Any
    async with proxy.channel(proxy.certificate("remote-c2")) as channel:
        for body in (b"\xff\xff", b"\x0a\x05abc", b""):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary("/etcdserverpb.KV/Range")(body, timeout=20)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        call = channel.stream_stream("/etcdserverpb.Watch/Watch")()
        await call.write(b"\xff\xff")
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        await Reader(channel).range(b"cilium/state/a")
    assert "Traceback" not in proxy.log.read_text()


def test_bad_configuration_says_all_problems_and_exits_3(tmp_path: Path) -> None:
    proxy = Proxy(tmp_path / "proxy", "ftp://nowhere", options=("--cluster=UP",))
    proxy.start()
    assert proxy.stop_code() == 3
    text = proxy.log.read_text()
    assert "http://HOST:PORT" in text
    assert "invalid cluster name 'UP'" in text
    (proxy.server / "tls.crt").unlink()
    proxy.options, proxy.etcd_url = (f"--users={tmp_path / 'none.yaml'}",), "http://127.0.0.1:1"
    proxy.start()
    assert proxy.stop_code() == 3
    text = proxy.log.read_text()
    assert "tls.crt cannot be read" in text
    assert "none.yaml" in text


def test_address_in_use_is_named(etcd: Etcd, proxy: Proxy, tmp_path: Path) -> None:
    second = Proxy(tmp_path / "second", etcd.url)
    second.address = proxy.address
    second.start()
    assert second.stop_code() == 3
    assert f"cannot listen on {proxy.address}" in second.log.read_text()
