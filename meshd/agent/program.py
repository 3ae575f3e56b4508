"""The agent as a process: its tasks, its socket, its signals."""

import asyncio
import logging
import signal
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial

from prometheus_client import CollectorRegistry

import meshd.socket
from meshd.agent.agent import Agent, first_reason
from meshd.agent.etcd.ownership import NotOurs
from meshd.agent.metrics import Metrics, readiness
from meshd.agent.report import report
from meshd.agent.settings import AgentConfig
from meshd.config import ConfigError
from meshd.health import serve_health

logger = logging.getLogger(__name__)


async def run(config: AgentConfig, *, once: bool = False) -> None:
    """Runs until SIGTERM or SIGINT, or (`once`) until everything stands in etcd; leaves etcd as it is.

    Raises ConfigError if this etcd is not this cluster's, HealthListenError.
    """
    agent = Agent(config)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    refusal = ""
    try:
        async with _health(agent), meshd.socket.serve(config.socket, {"/v1/status": partial(report, agent)}):
            await _run_until(stop, agent, once=once)
    except* NotOurs as refused:
        refusal = first_reason(refused)
    finally:
        await agent.close()
    if refusal:
        raise ConfigError(refusal)


def _health(agent: Agent) -> AbstractAsyncContextManager[None]:
    if not agent.config.health:
        return nullcontext()
    registry = CollectorRegistry()
    registry.register(Metrics(agent))
    return serve_health(agent.config.health, partial(readiness, agent), registry)


async def _run_until(stop: asyncio.Event, agent: Agent, *, once: bool) -> None:
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(agent.observe()), tasks.create_task(agent.publish())]
        if once:
            running.append(tasks.create_task(_stop_when_announced(stop, agent)))
        try:
            await stop.wait()
        finally:
            agent.ending = True
        logger.info("stopping")
        for task in running:
            task.cancel()


async def _stop_when_announced(stop: asyncio.Event, agent: Agent) -> None:
    await agent.progress.announced.wait()
    stop.set()
