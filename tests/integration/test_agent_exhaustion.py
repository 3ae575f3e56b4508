"""A cluster whose identity numbers are all taken but one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from identity.allocation import FIRST_LOCAL
from identity.numbering import identity_range
from tests.support import kubernetes
from tests.support.agent import AgentProcess, deployment, eventually
from tests.support.etcd import Etcd
from wire import keys
from wire.codec import encode
from wire.keys import Kind
from wire.local import Allocation

pytestmark = pytest.mark.etcd

IPS = keys.prefix(Kind.IP, "c1")
NUMBERS = identity_range(1, max_clusters=511)[FIRST_LOCAL:]


@pytest.fixture
def agent(tmp_path: Path, etcd: Etcd) -> Iterator[AgentProcess]:
    made = AgentProcess(tmp_path, etcd.url, max_clusters=511)
    yield made
    made.kill()


def take(etcd: Etcd, numbers: range) -> None:
    for start in range(0, len(numbers), 128):
        part = numbers[start : start + 128]
        records = {f"meshd/v1/identities/{number}": encode(Allocation(f"k8s:n={number};")) for number in part}
        etcd.put_all({key: value.decode() for key, value in records.items()})


def test_pods_without_a_number_are_not_published_and_the_remedy_is_named(agent: AgentProcess, etcd: Etcd) -> None:
    take(etcd, NUMBERS[1:])
    agent.write("web.yaml", kubernetes.node("node-1"), *deployment("web", 2))
    agent.start_and_publish()
    assert len(etcd.keys(IPS)) == 2, "the last number"
    agent.write("db.yaml", *deployment("db", 1, network="10.0.1"))
    eventually(lambda: "drop_labels" in str(agent.status()["degraded"]))
    (entry,) = agent.status()["degraded"]
    assert entry["where"] == "Pod default/db-1"
    assert entry["reasons"][0].startswith(f"all {len(NUMBERS)} identities of this cluster are taken")
    agent.write("web.yaml", kubernetes.node("node-1"), *deployment("web", 3))
    eventually(lambda: len(etcd.keys(IPS)) == 3, "the others go on")
    assert agent.status()["identities"] == {"used": len(NUMBERS), "capacity": len(NUMBERS)}
