"""The Kubernetes source: every kind that is used, listed and watched at the API server."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from functools import partial

from meshd.agent.objects import ObjectKind
from meshd.agent.sources.answers import RESOURCES
from meshd.agent.sources.apiserver import ApiServer
from meshd.agent.sources.credentials import Credentials
from meshd.agent.sources.reflector import Reflector, Timing
from meshd.agent.state import Changes

#: Changes that are waiting to be taken in, at most: after them the API server has to wait.
QUEUE = 16


class KubernetesSource:
    """`changes` is `synced` when each kind was listed once, or is known to be missing."""

    def __init__(self, credentials: Credentials, timing: Timing | None = None) -> None:
        timing = timing or Timing()
        self.credentials = credentials
        self._server = ApiServer(credentials, silence_s=timing.silence_s)
        self._queue: asyncio.Queue[tuple[ObjectKind, Changes]] = asyncio.Queue(QUEUE)
        self.reflectors = [
            Reflector(self._server, resource, partial(self._deliver, resource.kind), timing) for resource in RESOURCES
        ]

    @property
    def name(self) -> str:
        return f"Kubernetes {self._server.url or '(not reached yet)'}, {self.credentials.name}"

    @property
    def problems(self) -> list[str]:
        """What is wrong now: kinds that cannot be heard, objects that cannot be used."""
        found = [reflector.problem for reflector in self.reflectors if reflector.problem]
        for reflector in self.reflectors:
            found += [f"{ref}: {reason}: correct the field" for ref, reason in sorted(reflector.bad.items())]
        return found

    @property
    def seconds(self) -> dict[str, float]:
        """Spent on lists so far: waiting for the server (all kinds at once, so they overlap), and decoding."""
        return {
            "list": sum(reflector.waiting_s for reflector in self.reflectors),
            "decode": sum(reflector.decoding_s for reflector in self.reflectors),
        }

    async def changes(self) -> AsyncGenerator[Changes]:
        """Never ends by itself."""
        tasks = [asyncio.create_task(reflector.run()) for reflector in self.reflectors]
        told: set[ObjectKind] = set()
        partly: set[ObjectKind] = set()  # of which something cannot be read
        try:
            while True:
                kind, changes = await self._next(tasks)
                if changes.synced:
                    told.add(kind)
                (partly.discard if changes.whole else partly.add)(kind)
                yield replace(changes, synced=len(told) == len(tasks), whole=not partly)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._server.close()

    async def _deliver(self, kind: ObjectKind, changes: Changes) -> None:
        await self._queue.put((kind, changes))

    async def _next(self, tasks: list[asyncio.Task[None]]) -> tuple[ObjectKind, Changes]:
        """What came first. Raises what a reflector raised: they never end otherwise."""
        if self._queue.empty():
            item = asyncio.create_task(self._queue.get())
            try:
                await asyncio.wait([item, *tasks], return_when=asyncio.FIRST_COMPLETED)
                if item.done():
                    return item.result()
            finally:
                item.cancel()
            for task in tasks:
                if task.done():
                    task.result()
        return self._queue.get_nowait()
