"""What comes before and after each round of the reconcilers: what has moved since the last one is made desired, and
what came of the round may ask for another.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from meshd.daemon.config import DaemonConfig
from meshd.daemon.hostaddresses import host_addresses
from meshd.daemon.kernel import BACKEND_MAPS
from meshd.daemon.mesh import PODS, Mesh
from meshd.daemon.podtarget import PodTarget
from meshd.daemon.policing import Policing
from meshd.daemon.remote import Remote
from meshd.daemon.underlay import interfaces
from meshd.daemon.ways import Ways
from meshd.reconcile.loop import Reconciler
from meshd.reconcile.target import Item
from routing.plan import Settings

INTERFACES_S = 0.5


class Rounds:
    """`refresh` before a round, `settled` after it; `watch_interfaces` as a task."""

    def __init__(
        self,
        config: DaemonConfig,
        *,
        mesh: Mesh,
        ways: Ways,
        policing: Policing,
        maps: Reconciler,
        pods: Reconciler,
        pod_target: PodTarget,
        remotes: Callable[[], Sequence[Remote]],
        wake: Callable[[], None],
    ) -> None:
        self._config, self._mesh, self._ways, self._policing = config, mesh, ways, policing
        self._maps, self._pods, self._pod_target = maps, pods, pod_target
        self._remotes, self._wake = remotes, wake
        self.files_moved = True
        """Remotes came, went or have another file."""
        self.has_more = True
        """Something was heard that the last round did not take."""
        self._interfaces_moved = False
        self._refused: frozenset[Item] = frozenset()

    def refresh(self) -> bool:
        """Brings what is desired up to date; True if there is more."""
        if self._interfaces_moved:
            self._interfaces_moved = False
            self._look_for_pods()
        self._ways.repair()
        if self.files_moved:
            self.files_moved = False
            if (settings := self._settings()) != self._mesh.nodes.settings:
                self._mesh.configure(settings)
        if (refused := self._refused_backends()) != self._refused:
            self._refused = refused
            self._mesh.refuse(refused)
        more = self._mesh.refresh(time.monotonic())
        self._ways.look()
        self._policing.set_here(set(self._mesh.addresses.local_pods.values()))
        self.has_more = self._policing.refresh() or more
        return self.has_more

    def settled(self) -> None:
        """The round is over, nothing is dirty."""
        self._ways.look()
        if self.asks_for_another():
            self._wake()

    def asks_for_another(self) -> bool:
        """Whether what failed in the rounds, or found room at last, changes what is wanted."""
        return self._refused_backends() != self._refused or self._policing.feels_shortage()

    async def watch_interfaces(self) -> NoReturn:
        """A pod's interface may come after its record, or be made anew: look again whenever the set has changed."""
        known = interfaces()
        while True:
            await asyncio.sleep(INTERFACES_S)
            if (now := interfaces()) != known:
                known, self._interfaces_moved = now, True
                self._wake()

    def _look_for_pods(self) -> None:
        self._pods.delta.doubt(PODS, self._pod_target.lost({index for index, _ in interfaces()}))
        for item in self._pods.retries.failures:
            self._pods.delta.touch(item)
        self._policing.outside.set_host(host_addresses())

    def _settings(self) -> Settings:
        modes = {remote.cluster: remote.file.routing_mode for remote in self._remotes()}
        return Settings(
            self._config.cluster,
            self._config.node,
            self._config.routing_mode,
            {cluster: mode for cluster, mode in modes.items() if mode is not None},
            self._config.underlay,
            self._config.subnets,
        )

    def _refused_backends(self) -> frozenset[Item]:
        return frozenset(item for item in self._maps.retries.failures if item[0] in BACKEND_MAPS)
