"""Brings the API server's slices to what the plan says, as long as this agent leads."""

import asyncio
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import msgspec

from meshd.agent.imports.clusters import Clusters
from meshd.agent.imports.plan import Operation, Plan, Verb
from meshd.agent.imports.slices import document_of
from meshd.agent.index import ObjectName
from meshd.agent.objects import MANAGED_BY_LABEL, OUR_SLICE_MANAGER
from meshd.agent.settings import AgentConfig
from meshd.agent.sources.apiserver import ApiServer, ApiUnavailable, Conflict, HistoryGone, NotServed, Refused
from meshd.agent.state import Changes

logger = logging.getLogger(__name__)

#: What could not be done is tried again after this, s.
AGAIN_S = 5.0


class Importer:
    """`run` it in every spell of leading."""

    def __init__(self, plan: Plan, server: ApiServer, own_node: Callable[[str], bytes | None]) -> None:
        self.plan = plan
        self.problems: dict[ObjectName, str] = {}
        """Services whose slices are not as they shall be, and why."""
        self.writes = 0
        self.clusters: Clusters | None = None
        self._server, self._own_node = server, own_node
        self._changed = asyncio.Event()
        self._heard: object = None

    def take(self, changes: Changes) -> None:
        """The source has said something, and the state knows it."""
        self.plan.take(changes)
        self._changed.set()

    async def close(self) -> None:
        await self._server.close()

    async def run(self, folder: Path, config: AgentConfig) -> NoReturn:
        """With the clusters of this clustermesh folder. Ends only by being cancelled."""
        clusters = self.clusters = Clusters(
            folder,
            cluster=config.cluster,
            cluster_id=config.cluster_id,
            max_clusters=config.max_clusters,
            wake=self._changed.set,
        )
        self.plan.doubt()
        try:
            async with asyncio.TaskGroup() as group:
                clusters.start(group)
                group.create_task(self._try_again(), name="again")
                while True:
                    await self._changed.wait()
                    self._changed.clear()
                    await self._round(clusters)
        finally:
            self.clusters = None

    async def _round(self, clusters: Clusters) -> None:
        nodes, self.plan.dirty_nodes = self.plan.dirty_nodes, set()
        clusters.say_own_nodes({name: self._own_node(name) for name in nodes})
        while True:
            services, more = clusters.take()
            self.plan.dirty |= services
            if not more:
                break
            await asyncio.sleep(0)
        if not self.plan.synced:
            return
        if (heard := clusters.heard()) != self._heard:
            self._heard = heard
            self.plan.doubt()
        services, self.plan.dirty = self.plan.dirty, set()
        for service in sorted(services):
            await self._write(service, clusters)

    async def _write(self, service: ObjectName, clusters: Clusters) -> None:
        self.problems.pop(service, None)
        for operation in self.plan.operations(service, clusters):
            try:
                await self._do(operation)
            except (ApiUnavailable, Conflict, Refused, NotServed, HistoryGone) as error:
                logger.warning("a slice is not written", extra={"slice": "/".join(operation.name), "reason": error})
                self.problems[service] = str(error)
                return
            self.writes += 1
            self.plan.done(operation)

    async def _do(self, operation: Operation) -> None:
        namespace, name = operation.name
        collection = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        wanted = document_of(operation.slice)
        if operation.verb is Verb.CREATE:
            await self._server.change("POST", collection, msgspec.json.encode(wanted))
            return
        path = f"{collection}/{name}"
        try:
            metadata = await self._ours(path)
            if operation.verb is Verb.UPDATE:
                labels = metadata.get("labels", {}) | wanted["metadata"]["labels"]
                wanted["metadata"] = metadata | {"labels": labels}
                await self._server.change("PUT", path, msgspec.json.encode(wanted))
                return
            conditions = {"uid": metadata.get("uid"), "resourceVersion": metadata.get("resourceVersion")}
            await self._server.change("DELETE", path, msgspec.json.encode({"preconditions": conditions}))
        except NotServed:
            if operation.verb is not Verb.DELETE:
                raise

    async def _ours(self, path: str) -> dict[str, object]:
        """The metadata of a slice as it is now. Raises Conflict if it is somebody else's, NotServed if it is gone."""
        try:
            found = msgspec.json.decode(await self._server.change("GET", path), type=dict[str, object])
            metadata = msgspec.convert(found.get("metadata"), dict[str, object])
            labels = msgspec.convert(metadata.get("labels", {}), dict[str, str])
        except msgspec.DecodeError as error:
            raise ApiUnavailable(f"{path}: {error}") from error
        if labels.get(MANAGED_BY_LABEL) != OUR_SLICE_MANAGER:
            raise Conflict(f"{path} is managed by {labels.get(MANAGED_BY_LABEL)!r}: it is left alone")
        return metadata

    async def _try_again(self) -> NoReturn:
        while True:
            await asyncio.sleep(AGAIN_S * random.uniform(0.5, 1.5))  # noqa: S311 - so that not all come at once
            self.plan.dirty |= self.problems.keys()
            self._changed.set()
