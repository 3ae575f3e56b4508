"""What a daemon does now and then, whatever happens: looks after clusters, the ways to their nodes, and its memory."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from meshd.daemon.conflicts import Conflicts
from meshd.daemon.memory import Tidying
from meshd.daemon.mesh import Mesh
from meshd.daemon.narrow import Narrow
from meshd.daemon.pathnews import PathNews
from meshd.daemon.prober import Prober
from meshd.daemon.remote import Remote
from meshd.daemon.store import Store
from meshd.daemon.timeline import Timeline
from meshd.daemon.vigil import Vigil
from meshd.daemon.ways import Ways
from wire.records import IPAddress

VIGIL_S = 1.0
AGAIN_S = 10.0


class Upkeep:
    """`watch`, `probe` and `hear` as tasks; `forget` a cluster that left."""

    def __init__(
        self,
        local: Remote,
        remotes: Callable[[], Sequence[Remote]],
        *,
        store: Store,
        mesh: Mesh,
        ways: Ways,
        narrow: Narrow,
        prober: Prober | None,
        news: PathNews,
        timeline: Timeline,
        wake: Callable[[], None],
        tidied: Callable[[], None],
    ) -> None:
        self._local, self._remotes, self._store, self._mesh, self._ways = local, remotes, store, mesh, ways
        self._narrow, self._prober, self._news, self._timeline, self._wake = narrow, prober, news, timeline, wake
        self._vigil = Vigil(store, mesh, timeline)
        self._conflicts = Conflicts(mesh, timeline)
        self._tidying = Tidying(tidied)

    async def watch(self) -> NoReturn:
        while True:
            self._vigil.look([self._local, *self._remotes()], self._prober, time.monotonic())
            self._conflicts.look()
            self._tidying.look(self._store.listed_records, settled=not self._store.dirty)
            self._follow_paths()
            await asyncio.sleep(VIGIL_S)

    async def probe(self) -> None:
        """Without probes there is no evidence, but everything else goes on."""
        while self._prober is not None:
            try:
                await self._prober.run()
            except OSError as error:
                self._timeline.note("no probes", detail=str(error), bad=True)
            await asyncio.sleep(AGAIN_S)

    async def hear(self) -> None:
        """Without news of routers the probes find what ways carry, later."""
        while True:
            try:
                await self._news.run(self._take_news)
            except OSError as error:
                self._timeline.note("routers are not heard", detail=str(error), bad=True)
            await asyncio.sleep(AGAIN_S)

    def forget(self, cluster: str) -> None:
        self._vigil.forget(cluster)
        self._narrow.forget(cluster)
        if self._prober is not None:
            self._prober.forget(cluster)

    def _take_news(self, sizes: Mapping[IPAddress, int]) -> None:
        nodes = self._mesh.nodes
        moved = self._narrow.tell({address: size for address, size in sizes.items() if nodes.claimant(address)})
        if not moved:
            return
        nodes.told(moved)
        self._wake()
        if self._prober is not None:
            self._prober.measure({nodes.claimant(address).partition("/")[0] for address in moved})

    def _follow_paths(self) -> None:
        """Packets are made to fit the way to their node."""
        if self._prober is None or not (underlay := self._ways.underlay_mtu()):
            return
        clusters = [remote.cluster for remote in self._remotes()]
        if moved := self._narrow.look(clusters, self._prober.nodes, underlay, time.monotonic()):
            self._mesh.nodes.measured(moved)
            self._wake()
