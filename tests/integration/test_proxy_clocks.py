"""Processes whose clocks are off: an hour changes nothing, and of what does both sides say why."""

import json
import os
import socket
import ssl
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.clock import shifted_clock
from tests.support.etcd import Etcd
from tests.support.proxy import Proxy, reader

pytestmark = pytest.mark.etcd

STATE, STATE_END = b"cilium/state/", b"cilium/state0"
NAME = "c1.mesh.cilium.io"
READER = """
import socket, ssl, sys
folder, host, port = sys.argv[1:]
context = ssl.create_default_context(cafile=folder + "/ca.crt")
context.load_cert_chain(folder + "/tls.crt", folder + "/tls.key")
context.wrap_socket(socket.create_connection((host, int(port)), timeout=10), server_hostname=host)
"""


def probe(proxy: Proxy, certificate: Path, clock: dict[str, str]) -> tuple[int, dict[str, str]]:
    """What `meshd certs verify` says of the proxy, living at this clock: exit code, faults with their texts."""
    command = [sys.executable, "-m", "meshd", "certs", "verify", f"--folder={certificate}", f"--name={NAME}"]
    command += [f"--connect={proxy.address}", "--output=json"]
    environment = os.environ | clock
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30, check=False)
    (findings,) = json.loads(done.stdout).values()
    return done.returncode, {one["fault"]: one["text"] for one in findings}


def connect(proxy: Proxy, certificate: Path) -> None:
    context = ssl.create_default_context(cafile=str(proxy.certs / "ca/ca.crt"))
    context.load_cert_chain(certificate / "tls.crt", certificate / "tls.key")
    host, port = proxy.address.split(":")
    plain = socket.create_connection((host, int(port)), timeout=10)
    with context.wrap_socket(plain, server_hostname=host) as sock:
        sock.recv(1)


@pytest.mark.parametrize("hours", [1, -1])
async def test_an_hour_changes_nothing_at_either_side(
    tmp_path: Path, etcd: Etcd, idle_proxy: Proxy, hours: int
) -> None:
    clock = shifted_clock(tmp_path, timedelta(hours=hours))
    remote = idle_proxy.certificate("remote-c2")
    idle_proxy.environment = clock
    idle_proxy.start()
    idle_proxy.await_synced()
    async with reader(idle_proxy, remote) as reading, reading.watch(STATE, STATE_END) as watch:
        revision = etcd.put("cilium/state/a", "1")
        assert [event.kv.mod_revision for event in (await watch.read()).events] == [revision]
    idle_proxy.stop()
    idle_proxy.environment = {}
    idle_proxy.start()
    idle_proxy.await_synced()
    assert probe(idle_proxy, remote, clock) == (0, {})


def test_a_proxy_whose_clock_is_far_ahead_says_why_it_refuses(tmp_path: Path, idle_proxy: Proxy) -> None:
    remote = idle_proxy.certificate("remote-c2")
    idle_proxy.environment = shifted_clock(tmp_path, timedelta(days=100))
    idle_proxy.start()
    idle_proxy.await_synced()
    with pytest.raises(ssl.SSLError, match="ALERT_CERTIFICATE_EXPIRED"):
        connect(idle_proxy, remote)
    idle_proxy.await_status(lambda status: bool(status["handshakes_failed"] == {"expired": 1}))
    code, faults = probe(idle_proxy, remote, {})
    assert code == 2
    assert "by its clock our certificate has ended" in faults["refused"]


def test_a_reader_whose_clock_is_far_ahead_says_why_it_refuses(tmp_path: Path, proxy: Proxy) -> None:
    clock = shifted_clock(tmp_path, timedelta(days=100))
    remote = proxy.certificate("remote-c2")
    code, faults = probe(proxy, remote, clock)
    assert code == 2
    assert "expired" in faults
    command = [sys.executable, "-c", READER, str(remote), *proxy.address.split(":")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | clock, timeout=30, check=False)
    assert "certificate has expired" in done.stderr
    proxy.await_status(lambda status: bool(status["handshakes_failed"] == {"refused by the reader": 2}))
    assert "alert certificate expired" in proxy.log.read_text()
