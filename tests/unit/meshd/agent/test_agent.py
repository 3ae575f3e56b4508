"""The end of an agent; all else of it needs an etcd (tests/integration/test_agent.py)."""

import asyncio
from pathlib import Path

import pytest

from meshd.agent.agent import Agent
from meshd.agent.etcd.connection import EtcdUnavailable
from meshd.agent.settings import AgentConfig


async def test_what_fails_while_it_is_told_to_end_is_no_reason_to_start_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = AgentConfig(cluster="c1", cluster_id=1, manifests=tmp_path, run_dir=tmp_path, etcd="http://127.0.0.1:1")
    agent = Agent(config)
    spells = 0

    async def fail(lock: object) -> None:
        nonlocal spells
        spells += 1
        agent.ending = spells == 2
        raise ExceptionGroup("as a TaskGroup raises it", [EtcdUnavailable("it is gone")])

    monkeypatch.setattr(agent, "_lead", fail)
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(20):
            await agent.publish()
    assert spells == 2
    await agent.close()
