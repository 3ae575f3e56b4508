"""Headless global services over two clusters: the agent's EndpointSlices at an API server over HTTPS, from what a real
etcd behind a real proxy says.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from certs.names import Kind as LeafKind
from certs.names import Leaf
from tests.support import kubernetes, records
from tests.support.agent import AgentProcess, eventually
from tests.support.apiserver import ApiServer
from tests.support.etcd import Etcd
from tests.support.proxied import ProxiedCluster, new_authority

pytestmark = pytest.mark.etcd

DB = kubernetes.service("db", "None", selector={"app": "db"})
OWN = kubernetes.endpoint_slice("db-own", "db", [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}}])
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
MANAGED = "endpointslice.kubernetes.io/managed-by"
FOREIGN = kubernetes.endpoint_slice("foreign", "db", [], labels={MANAGED: "endpointslice-mesh-controller.cilium.io"})


@dataclass
class Pair:
    """The agent of c1 with its API server, and cluster2 behind its proxy."""

    server: ApiServer
    agent: AgentProcess
    two: ProxiedCluster
    mesh: Path

    def start(self) -> None:
        self.agent.start()
        eventually(lambda: self.status().get("clusters", {}).get("cluster2", {}).get("link") == "ready", "ready")

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.agent.status().get("imported") or {}
        return found

    def slices(self) -> list[dict[str, Any]]:
        """Those of meshd."""
        return [each for each in self.server.objects(SLICES) if each["metadata"]["labels"].get(MANAGED) == OURS]

    def addresses(self) -> set[str]:
        return {ip for each in self.slices() for endpoint in each["endpoints"] for ip in endpoint["addresses"]}

    def say(self, *backends: str) -> None:
        self.two.etcd.put_all(records.service("cluster2", 2, "default/db", *backends))


OURS = "endpointslice-mesh.meshd.io"


@pytest.fixture
def pair(tmp_path: Path, etcd: Etcd) -> Iterator[Pair]:
    two = ProxiedCluster(tmp_path, "cluster2", new_authority(tmp_path / "ca"), tmp_path / "certs")
    mesh = tmp_path / "mesh"
    mesh.mkdir()
    (mesh / "cluster2").write_text(two.remote_file(Leaf(LeafKind.REMOTE, "c1")))
    with ApiServer(tmp_path / "api") as server:
        server.put(kubernetes.namespace("default"), kubernetes.node("node-1"), DB, OWN, FOREIGN)
        agent = AgentProcess(
            tmp_path, etcd.url, manifests=None, kubeconfig=str(server.kubeconfig()), import_from=str(mesh)
        )
        try:
            two.start()
            two.etcd.put_all(records.cluster("cluster2", 2))
            yield Pair(server, agent, two, mesh)
        finally:
            agent.kill()
            two.stop()


def test_backends_of_other_clusters_are_slices_of_the_own_one(pair: Pair, etcd: Etcd) -> None:
    pair.say("20.0.0.1", "20.0.0.2", "10.0.0.9")  # the last one is this cluster's own to say
    pair.start()
    eventually(lambda: pair.addresses() == {"20.0.0.1", "20.0.0.2"})
    (found,) = pair.slices()
    assert found["metadata"]["labels"]["kubernetes.io/service-name"] == "db"
    assert found["metadata"]["labels"]["multicluster.kubernetes.io/source-cluster"] == "cluster2"
    assert found["ports"] == [{"name": "http", "protocol": "TCP", "port": 8080}]
    pair.say("20.0.0.2", "20.0.0.3")
    eventually(lambda: pair.addresses() == {"20.0.0.2", "20.0.0.3"})
    own = json.loads(etcd.get("cilium/state/services/v1/c1/default/db") or b"{}")
    assert set(own["backends"]) == {"10.0.0.1"}, "what is imported is not exported"
    pair.server.put(kubernetes.service("db", "None", annotations={}))
    eventually(lambda: pair.slices() == [])
    untouched = {each["metadata"]["name"] for each in pair.server.objects(SLICES)}
    assert untouched == {"db-own", "foreign"}


def test_a_cluster_that_is_silent_keeps_its_backends_and_one_that_leaves_takes_them_along(pair: Pair) -> None:
    pair.say("20.0.0.1")
    pair.start()
    eventually(lambda: pair.addresses() == {"20.0.0.1"})
    pair.two.kill_proxy()
    pair.agent.stop()
    written = len(pair.server.changes)
    pair.agent.start()
    eventually(lambda: pair.status().get("clusters", {}).get("cluster2", {}).get("link") == "disconnected")
    eventually(pair.agent.is_settled)
    assert pair.addresses() == {"20.0.0.1"}
    pair.say("20.0.0.1")
    pair.two.start_proxy()
    eventually(lambda: pair.status().get("clusters", {}).get("cluster2", {}).get("link") == "ready")
    assert len(pair.server.changes) == written, "a restart changes nothing"
    (pair.mesh / "cluster2").unlink()
    eventually(lambda: pair.slices() == [])


def test_a_cluster_that_is_silent_for_too_long_loses_its_backends_until_it_is_back(pair: Pair) -> None:
    file = pair.mesh / "cluster2"
    file.write_text(file.read_text() + "meshd: {stale-after: 1s, max-stale: 2s}\n")
    pair.say("20.0.0.1")
    pair.start()
    eventually(lambda: pair.addresses() == {"20.0.0.1"})
    pair.two.kill_proxy()
    eventually(lambda: pair.slices() == [])
    assert pair.status()["clusters"]["cluster2"]["presence"] == "withdrawn"
    pair.two.start_proxy()
    eventually(lambda: pair.addresses() == {"20.0.0.1"})


def test_what_went_while_nobody_looked_goes_once_the_cluster_was_heard(pair: Pair) -> None:
    pair.say("20.0.0.1")
    pair.start()
    eventually(lambda: pair.addresses() == {"20.0.0.1"})
    pair.agent.kill()
    pair.two.etcd.delete("cilium/state/services/v1/cluster2/default/db")
    pair.start()
    eventually(lambda: pair.slices() == [])


def test_what_others_do_to_a_slice_is_put_right_and_refusals_are_shown(pair: Pair) -> None:
    pair.say("20.0.0.1")
    pair.start()
    eventually(lambda: pair.addresses() == {"20.0.0.1"})
    (found,) = pair.slices()
    pair.server.put(found | {"endpoints": []})
    eventually(lambda: pair.addresses() == {"20.0.0.1"})
    pair.server.delete(found)
    eventually(lambda: pair.addresses() == {"20.0.0.1"})
    name = found["metadata"]["name"]
    pair.server.faults.refuse[f"/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/{name}"] = 403
    pair.say("20.0.0.2")
    eventually(lambda: "ClusterRole meshd-agent-import" in str(pair.status()["problems"]))
    assert pair.agent.fetch("/metrics")[1].count("meshd_agent_import_problems 1.0") == 1
    pair.server.faults.refuse.clear()
    eventually(lambda: pair.addresses() == {"20.0.0.2"})
    assert pair.status()["problems"] == {}
