"""Agents at an etcd of three members: one of these dies."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import kubernetes
from tests.support.agent import AgentProcess, deployment, eventually
from tests.support.etcd import Etcd
from wire import keys
from wire.keys import Kind

pytestmark = pytest.mark.etcd

IPS = keys.prefix(Kind.IP, "c1")


@pytest.fixture
def members(tmp_path: Path) -> Iterator[list[Etcd]]:
    made = [Etcd(tmp_path / f"etcd{number}") for number in range(3)]
    everybody = ",".join(f"m{number}=http://127.0.0.1:{member.peer_port}" for number, member in enumerate(made))
    token = os.urandom(4).hex()
    try:
        for number, member in enumerate(made):
            member.options = [f"--name=m{number}", f"--initial-cluster={everybody}", f"--initial-cluster-token={token}"]
        with ThreadPoolExecutor(len(made)) as threads:
            list(threads.map(Etcd.start, made))  # none is healthy before the others are there
        yield made
    finally:
        for member in made:
            member.kill()


def test_the_standby_at_another_member_takes_over_when_one_dies(members: list[Etcd], tmp_path: Path) -> None:
    agents = [AgentProcess(tmp_path, member.url, name=f"agent{n}") for n, member in enumerate(members[:2])]
    first, second = agents
    first.write("all.yaml", kubernetes.node("node-1"), *deployment("web", 3))
    try:
        first.start_and_publish()
        second.start()
        eventually(lambda: second.phase() == "standby")
        held = members[2].keys(IPS)
        members[0].kill()
        eventually(lambda: second.phase() == "writing")
        eventually(second.is_settled)
        assert members[2].keys(IPS) == held
        assert second.status()["published"]["writes"] == 0, "what is there is adopted"
        second.write("more.yaml", *deployment("web", 4)[3:])
        eventually(lambda: len(members[2].keys(IPS)) == 4)
        assert first.phase() != "writing"
    finally:
        for agent in agents:
            agent.kill()
