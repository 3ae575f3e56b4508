"""The agent as a process between a real etcd and an API server over real HTTPS."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import kubernetes
from tests.support.agent import AgentProcess, deployment, eventually
from tests.support.apiserver import ApiServer
from tests.support.etcd import Etcd
from wire import keys
from wire.keys import Kind

pytestmark = pytest.mark.etcd

WEB = kubernetes.service("web", "30.1.1.1", selector={"app": "web"})
IPS = keys.prefix(Kind.IP, "c1")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with ApiServer(tmp_path / "api") as running:
        running.put(kubernetes.namespace("default"), kubernetes.node("node-1"), WEB, *deployment("web", 3))
        yield running


@pytest.fixture
def agent(tmp_path: Path, etcd: Etcd, server: ApiServer) -> Iterator[AgentProcess]:
    made = AgentProcess(tmp_path, etcd.url, manifests=None, kubeconfig=str(server.kubeconfig()))
    yield made
    made.kill()


def ips(etcd: Etcd) -> set[str]:
    return {key.removeprefix(IPS) for key in etcd.keys(IPS)}


def records(etcd: Etcd) -> dict[str, bytes]:
    return etcd.keys("cilium/state/") | etcd.keys("meshd/v1/services/") | etcd.keys("meshd/v1/policies/")


def test_a_cluster_is_published_and_followed(agent: AgentProcess, server: ApiServer, etcd: Etcd) -> None:
    agent.start_and_publish()
    assert ips(etcd) == {"10.0.0.1", "10.0.0.2", "10.0.0.3"}
    assert agent.status()["source"]["name"].startswith(f"Kubernetes {server.url}")
    server.put(*deployment("web", 4)[3:], kubernetes.policy("p", ingress=[]))
    server.delete(*deployment("web", 1))
    eventually(lambda: ips(etcd) == {"10.0.0.2", "10.0.0.3", "10.0.0.4"})
    eventually(lambda: etcd.get("meshd/v1/policies/NetworkPolicy/default/p"))
    service = json.loads(etcd.get(keys.record(Kind.SERVICE, "c1", "default/web")) or b"{}")
    assert set(service["backends"]) == ips(etcd)


def test_an_api_server_that_is_away_costs_no_record(agent: AgentProcess, server: ApiServer, etcd: Etcd) -> None:
    agent.start_and_publish()
    before = records(etcd)
    server.stop()
    eventually(lambda: agent.status()["source"]["bad"])
    assert records(etcd) == before
    assert agent.fetch("/readyz")[0] == 200
    agent.stop()
    agent.start()
    eventually(lambda: agent.phase() == "writing" and agent.status()["source"]["bad"])
    assert records(etcd) == before
    server.compact()
    server.delete(*deployment("web", 1))
    server.start()
    eventually(lambda: ips(etcd) == {"10.0.0.2", "10.0.0.3"})
    eventually(agent.is_settled)
    eventually(lambda: not agent.status()["source"]["bad"])


def test_what_cannot_be_read_at_the_start_is_not_taken_for_gone(
    agent: AgentProcess, server: ApiServer, etcd: Etcd
) -> None:
    more = kubernetes.service("more", "30.1.1.2", selector={"app": "web"})
    server.put(more)
    agent.start_and_publish()
    agent.stop()
    key = keys.record(Kind.SERVICE, "c1", "default/more")
    server.put(more | {"spec": {"ports": "none"}})
    server.delete(*deployment("web", 1))
    agent.start_and_publish()
    server.delete(deployment("web", 2)[1])
    eventually(lambda: ips(etcd) == {"10.0.0.1", "10.0.0.3"}, "what is known to be gone goes")
    assert etcd.get(key) is not None
    assert agent.status()["source"]["whole"] is False
    server.delete(more)
    eventually(lambda: etcd.get(key) is None)
    eventually(lambda: ips(etcd) == {"10.0.0.3"})


def test_an_etcd_that_was_away_is_caught_up_with(agent: AgentProcess, server: ApiServer, etcd: Etcd) -> None:
    agent.start_and_publish()
    etcd.stop()
    server.put(*deployment("web", 4)[3:])
    server.delete(*deployment("web", 1))
    etcd.start()
    eventually(lambda: ips(etcd) == {"10.0.0.2", "10.0.0.3", "10.0.0.4"})


def test_both_sources_publish_the_same(tmp_path: Path, agent: AgentProcess, server: ApiServer, etcd: Etcd) -> None:
    agent.start_and_publish()
    published = records(etcd)
    agent.stop()
    other = AgentProcess(tmp_path, etcd.url, name="other")
    other.write("all.yaml", kubernetes.namespace("default"), kubernetes.node("node-1"), WEB, *deployment("web", 3))
    done = subprocess.run([*other.command, "--dry-run"], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == ""
    assert done.returncode == 0, done.stderr
    assert records(etcd) == published


def test_dry_run_shows_what_the_cluster_would_change(agent: AgentProcess, server: ApiServer, etcd: Etcd) -> None:
    agent.start_and_publish()
    agent.stop()
    server.put(kubernetes.policy("p"))
    done = subprocess.run([*agent.command, "--dry-run"], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == '+ meshd/v1/policies/NetworkPolicy/default/p {"spec":{"podSelector":{}}}\n'
    assert done.returncode == 0
