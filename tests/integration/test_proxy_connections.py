"""What stands below gRPC at a real proxy: handshakes and why they fail, HTTP/1.1, limits of connections, its end."""

import asyncio
import http.client
import json
import socket
import ssl
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest

from tests.support.etcd import Etcd
from tests.support.proxy import Proxy, Reader, StreamEnded, reader

pytestmark = pytest.mark.etcd

STATE, STATE_END = b"cilium/state/", b"cilium/state0"
_LIMITS = "limits: {connections: 20, peer_connections: 2}"


@pytest.fixture
def proxy_options(tmp_path: Path) -> tuple[str, ...]:
    config = tmp_path / "proxy.yaml"
    config.write_text(_LIMITS)
    return (f"--config={config}",)


def context(proxy: Proxy, certificate: Path | None, *alpn: str) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(proxy.certs / "ca/ca.crt"))
    if certificate:
        made.load_cert_chain(certificate / "tls.crt", certificate / "tls.key")
    if alpn:
        made.set_alpn_protocols(list(alpn))
    return made


def connect(proxy: Proxy, made: ssl.SSLContext) -> ssl.SSLSocket:
    host, port = proxy.address.split(":")
    return made.wrap_socket(socket.create_connection((host, int(port)), timeout=10), server_hostname=host)


def get(proxy: Proxy, certificate: Path, path: str, *alpn: str, method: str = "GET") -> tuple[int, dict[str, str]]:
    host, port = proxy.address.split(":")
    made = context(proxy, certificate, *alpn)
    with closing(http.client.HTTPSConnection(host, int(port), timeout=10, context=made)) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def send_endlessly(sock: ssl.SSLSocket, data: bytes) -> None:
    sent = 0
    while sent < 256 << 20:
        sent += sock.send(data)


@pytest.mark.parametrize("alpn", [(), ("http/1.1",)])
def test_version_in_http1_as_etcd_gives_it(etcd: Etcd, proxy: Proxy, alpn: tuple[str, ...]) -> None:
    remote = proxy.certificate("remote-c2")
    [own] = json.loads(etcd.etcdctl("endpoint", "status", "--write-out=json"))
    version = own["Status"]["version"]
    cluster = ".".join(version.split(".")[:2]) + ".0"
    assert get(proxy, remote, "/version", *alpn) == (200, {"etcdserver": version, "etcdcluster": cluster})
    assert get(proxy, remote, "/health", *alpn)[0] == 404
    assert get(proxy, remote, "/version", *alpn, method="PUT")[0] == 405
    assert get(proxy, proxy.certificate("daemon-c2"), "/version", *alpn)[0] == 403
    with connect(proxy, context(proxy, remote)) as sock:
        sock.sendall(b"x" * 10_000)
        assert sock.recv(100).startswith(b"HTTP/1.1 431 ")


def test_http2_without_alpn(proxy: Proxy) -> None:
    with connect(proxy, context(proxy, proxy.certificate("remote-c2"))) as sock:
        sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
        answer = sock.recv(9)
        assert answer[3] == 4  # its settings


async def test_who_asks_and_reads_no_answer_is_not_listened_to(proxy: Proxy) -> None:
    ping = b"\0\0\x08\x06" + bytes(5) + b"12345678"
    with connect(proxy, context(proxy, proxy.certificate("remote-c2"), "h2")) as sock:
        sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
        sock.settimeout(1)
        for size in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, size, 64 << 10)
        with pytest.raises(TimeoutError):
            send_endlessly(sock, ping * 3_000)
        pages = int(Path(f"/proc/{proxy.pid}/statm").read_text().split()[1])
        assert pages * 4096 < 200 << 20
        async with reader(proxy, proxy.certificate("remote-c3")) as other:
            await other.range(STATE, STATE_END)


def test_why_a_handshake_failed_is_counted_and_told_to_the_client(proxy: Proxy) -> None:
    old = proxy.certificate("remote-c3", age=timedelta(days=100))
    with pytest.raises(ssl.SSLError, match="ALERT_CERTIFICATE_EXPIRED"), connect(proxy, context(proxy, old)) as sock:
        sock.recv(1)
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"), connect(proxy, context(proxy, None)) as sock:
        sock.recv(1)
    server = proxy.server  # good, but not for a client
    with pytest.raises(ssl.SSLError, match="ALERT"), connect(proxy, context(proxy, server)) as sock:
        sock.recv(1)
    host, port = proxy.address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as plain:
        plain.sendall(b"GET /version HTTP/1.1\r\n\r\n")
        plain.recv(100)
    reasons = {"expired": 1, "no certificate": 1, "wrong usage": 1, "no TLS": 1}
    proxy.await_status(lambda status: bool(status["handshakes_failed"] == reasons))
    log = proxy.log.read_text()
    for reason in reasons:
        assert f"handshake failed address=ipv4:{host}:" in log
        assert f"reason={reason}" in log or f"reason='{reason}'" in log
    old_tls = context(proxy, proxy.certificate("remote-c2"))
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old_tls.minimum_version = old_tls.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError), connect(proxy, old_tls):
        pass


async def test_a_peer_with_too_many_connections_is_told_and_others_get_in(proxy: Proxy) -> None:
    greedy = proxy.certificate("remote-c2")
    async with reader(proxy, greedy) as first, reader(proxy, greedy) as second, proxy.channel(greedy) as third:
        for reading in (first, second):
            await reading.range(STATE, STATE_END)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await Reader(third, patient=False).range(STATE, STATE_END)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused.value.details() == "meshd: too many connections"
        async with reader(proxy, proxy.certificate("remote-c3")) as modest:
            await modest.range(STATE, STATE_END)
        await first.range(STATE, STATE_END)
    status = proxy.await_status(lambda status: status["connections"] == 0)
    assert status["refused"]["meshd: too many connections"] >= 1


def test_beyond_all_connections_new_ones_are_closed(proxy: Proxy) -> None:
    made = context(proxy, proxy.certificate("remote-c2"), "h2")
    host, port = proxy.address.split(":")
    silent = [socket.create_connection((host, int(port)), timeout=10) for _ in range(20)]
    try:
        with pytest.raises(OSError, match=r"EOF|reset"), connect(proxy, made) as refused:
            refused.recv(1)
    finally:
        for sock in silent:
            sock.close()
    end = time.monotonic() + 10
    while True:  # the places are free again
        try:
            connect(proxy, made).close()
            break
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.05)


async def test_a_stopping_proxy_says_so_on_every_stream(proxy: Proxy) -> None:
    async with (
        reader(proxy, proxy.certificate("remote-c2")) as two,
        reader(proxy, proxy.certificate("remote-c3")) as three,
        two.watch(STATE, STATE_END) as first,
        three.watch(STATE, STATE_END) as second,
    ):
        assert await asyncio.to_thread(proxy.stop) == 0
        for watch in (first, second):
            with pytest.raises((StreamEnded, grpc.aio.AioRpcError)):
                await watch.read()
            assert await watch.code() is grpc.StatusCode.UNAVAILABLE
    assert "this proxy stops" in proxy.log.read_text()
    assert "Traceback" not in proxy.log.read_text()
