"""Agent and proxy at an etcd that speaks mutual TLS only."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from certs.authority import init_ca
from tests.support import kubernetes
from tests.support.agent import AgentProcess, deployment, eventually
from tests.support.etcd_tls import TlsEtcd
from tests.support.proxy import Proxy
from wire import keys
from wire.keys import Kind

pytestmark = pytest.mark.etcd

IPS = keys.prefix(Kind.IP, "c1")


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[TlsEtcd]:
    member = TlsEtcd(tmp_path / "etcd")
    try:
        member.start()
        yield member
    finally:
        member.kill()


@pytest.fixture
def agent(tmp_path: Path, etcd: TlsEtcd) -> Iterator[AgentProcess]:
    made = AgentProcess(tmp_path, etcd.url, **dict[str, Any](etcd.settings))
    made.write("all.yaml", kubernetes.node("node-1"), *deployment("web", 2))
    yield made
    made.kill()


def test_an_agent_publishes_and_follows_its_certificate(agent: AgentProcess, etcd: TlsEtcd, tmp_path: Path) -> None:
    agent.start_and_publish()
    assert len(etcd.keys(IPS)) == 2
    etcd.stop()
    etcd.trust(init_ca(tmp_path / "other", now=datetime.now(UTC)))
    agent.write("more.yaml", *deployment("web", 3)[2:])
    etcd.start()
    eventually(lambda: len(etcd.keys(IPS)) == 3, "the new certificate is used")
    assert agent.stop() == 0
    assert etcd.get(keys.LEADER) is None


def test_a_certificate_that_is_not_to_be_believed_is_said(etcd: TlsEtcd, tmp_path: Path) -> None:
    init_ca(tmp_path / "other", now=datetime.now(UTC))
    settings = etcd.settings | {"etcd_ca": str(tmp_path / "other" / "ca" / "ca.crt")}
    agent = AgentProcess(tmp_path, etcd.url, **dict[str, Any](settings))
    try:
        agent.start()
        eventually(lambda: "certificate" in str(agent.status().get("etcd", {}).get("error", "")).lower())
    finally:
        agent.kill()


def test_a_proxy_serves_such_an_etcd(etcd: TlsEtcd, tmp_path: Path) -> None:
    etcd.put("cilium/.heartbeat", "now")
    folder = tmp_path / "proxy"
    folder.mkdir()
    options = [f"--{name.replace('_', '-')}={value}" for name, value in etcd.settings.items() if name != "etcd"]
    proxy = Proxy(folder, etcd.url, options=tuple(options))
    try:
        proxy.start()
        proxy.await_status(lambda status: status["upstream"]["state"] == "synced")
        etcd.stop()
        proxy.await_status(lambda status: status["upstream"]["state"] == "away")
        etcd.trust(init_ca(tmp_path / "other", now=datetime.now(UTC)))
        etcd.start()
        proxy.await_status(lambda status: status["upstream"]["state"] == "synced")
    finally:
        proxy.kill()
