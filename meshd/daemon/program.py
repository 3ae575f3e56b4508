"""The daemon's process: wires store, remotes, mesh, reconcilers and socket together and runs until it is told to stop.
Stopping takes nothing down in the kernel.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial

from prometheus_client import CollectorRegistry, Histogram

from meshd import socket
from meshd.daemon.allowance import DEFAULT_ALLOWANCE, OWN_CLUSTER, Allowance
from meshd.daemon.checks import check, read_local_file
from meshd.daemon.clustermesh import Clustermesh
from meshd.daemon.config import DaemonConfig
from meshd.daemon.datapath import Datapath, open_datapath
from meshd.daemon.hostaddresses import host_addresses
from meshd.daemon.kernel import MapShape, PolicyShape
from meshd.daemon.lag import Lags
from meshd.daemon.members import Members
from meshd.daemon.memory import set_up as set_up_memory
from meshd.daemon.memory import tidy
from meshd.daemon.mesh import PODS, Mesh
from meshd.daemon.metrics import BUCKETS_S, PREFIX, Metrics, readiness
from meshd.daemon.narrow import Narrow
from meshd.daemon.pacer import LISTS_APART_S, Pacer
from meshd.daemon.pathnews import PathNews
from meshd.daemon.podtarget import PodShape
from meshd.daemon.policing import POLICY_MAPS, Policing
from meshd.daemon.prober import Prober
from meshd.daemon.readiness import Readiness
from meshd.daemon.remote import Remote
from meshd.daemon.remotefile import RemoteFile
from meshd.daemon.report import Report
from meshd.daemon.restoration import restore
from meshd.daemon.rounds import Rounds
from meshd.daemon.routetarget import RouteShape
from meshd.daemon.startup import Startup
from meshd.daemon.store import Store
from meshd.daemon.timeline import Timeline
from meshd.daemon.upkeep import Upkeep
from meshd.daemon.verdicts import Verdicts
from meshd.daemon.wantedroutes import EXPORTS, ROUTES
from meshd.daemon.ways import Ways
from meshd.health import serve_health
from meshd.reconcile.loop import Loop, Reconciler
from meshd.single import alone
from wire.keys import LOCAL_KINDS, SHARED_KINDS, Kind

logger = logging.getLogger(__name__)


class _Stop(Exception):
    """SIGTERM or SIGINT."""


class Daemon:
    """One daemon. `run` it once."""

    def __init__(
        self,
        config: DaemonConfig,
        local: RemoteFile,
        datapath: Datapath,
        executor: Executor,
        *,
        reconciled: Callable[[], object] = lambda: None,
        tidied: Callable[[], None] = lambda: None,
    ) -> None:
        """`reconciled` is called once, when everything that was there at the start is in the kernel; `tidied` when
        large lists are dealt with (memory.py).
        """
        self.config = config
        self._startup = Startup(self, reconciled)
        self.started = time.monotonic()
        self.readiness = Readiness()
        self.members = Members(config.cluster, config.cluster_id, max_clusters=config.max_clusters)
        self.maps = Reconciler("maps", datapath.maps, MapShape())
        self.pods = Reconciler("pods", datapath.pods, PodShape())
        self.policy = Reconciler("policy", datapath.maps, PolicyShape())
        self.routes = Reconciler("routes", datapath.routes, RouteShape())
        self.targets = [self.policy, self.maps, self.pods, self.routes]
        self.propagation = Histogram(
            PREFIX + "propagation_seconds",
            "From a change's arrival to its end in the maps.",
            registry=None,
            buckets=BUCKETS_S,
        )
        self.loop = Loop(
            self.targets,
            executor,
            refresh=lambda: self.rounds.refresh(),
            settled=self._settled,
            took=self.propagation.observe,
        )
        wanted = {ROUTES: config.host_routes, EXPORTS: config.export_pod_cidrs}
        self._route_maps = frozenset(name for name, is_wanted in wanted.items() if is_wanted)
        self.drops = datapath.drops
        self.timeline = Timeline()
        self.clustermesh: Clustermesh | None = None
        self.store = Store(self.loop.wake, allowance=self.allowance)
        self.mesh = Mesh(
            self.store,
            self.members,
            node=config.node,
            maps=self.maps.delta,
            pods=self.pods.delta,
            routes=self.routes.delta,
            route_maps=self._route_maps,
            underlay_version=config.underlay,
            balancing=config.load_balancing,
            table_size=config.maglev_size,
            allowance=self.allowance,
        )
        self.ways = Ways(datapath, self.mesh, self.routes, executor, self.loop.wake, host_routes=config.host_routes)
        self.foreign_programs = datapath.foreign_programs
        self._pacer = Pacer(LISTS_APART_S)
        self.lags = Lags()
        self.local = self._make(local, (*SHARED_KINDS, *LOCAL_KINDS), is_local=True)
        self.prober: Prober | None = None
        if datapath.tunnel:
            self.prober = Prober(
                node=config.node,
                is_urgent=self._is_lost,
                underlay=config.underlay,
                mtu=self.ways.underlay_mtu,
            )
        narrow = Narrow(config.underlay, datapath.held.get("md_node", {}))
        self.mesh.nodes.path_of = narrow.path_of
        self._upkeep = Upkeep(
            self.local,
            self.remotes,
            store=self.store,
            mesh=self.mesh,
            ways=self.ways,
            narrow=narrow,
            prober=self.prober,
            news=PathNews(config.underlay, executor),
            timeline=self.timeline,
            wake=self.loop.wake,
            tidied=tidied,
        )
        self.policing = Policing(
            self.store,
            self.members,
            delta=self.policy.delta,
            changed_pods=self.mesh.police,
            mode=config.policy,
            namespaces=config.policy_namespaces,
            default_local=config.policy_default_local_cluster,
            failing=lambda: [*self.policy.retries.failures, *self.maps.retries.failures],
        )
        self.mesh.listeners.append(self.policing.take)
        self.verdicts = Verdicts()
        self._ring = datapath.ring
        self._pod_target = datapath.pods
        self.rounds = Rounds(
            config,
            mesh=self.mesh,
            ways=self.ways,
            policing=self.policing,
            maps=self.maps,
            pods=self.pods,
            pod_target=datapath.pods,
            remotes=self.remotes,
            wake=self.loop.wake,
        )
        self._restore(datapath)

    def _restore(self, datapath: Datapath) -> None:
        for name, held in datapath.held.items():
            (self.policy if name in POLICY_MAPS else self.maps).delta.restore(name, held)
        self.policing.restore(datapath.held["md_outside"], datapath.held["md_subject"])
        self.policing.outside.set_host(host_addresses())
        self.pods.delta.restore(PODS, datapath.pods.dump(PODS))
        self.mesh.restore(restore(datapath.held, max_clusters=self.config.max_clusters))
        for name, routes in datapath.held_routes.items():
            self.routes.delta.restore(name, routes)
            if name not in self._route_maps:
                self.routes.delta.prune(name, lambda key, value: True)

    async def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        self._startup.observe()
        try:
            api = socket.serve(self.config.socket, Report(self).routes())
            async with api, self._health(), asyncio.TaskGroup() as group:
                self.clustermesh = Clustermesh(
                    self.config.clustermesh,
                    own=self.config.cluster,
                    group=group,
                    make=self._join,
                    leave=self._leave,
                    changed=self._change,
                )
                self.clustermesh.refresh()
                if self._ring is not None:
                    self.verdicts.attach(self._ring)
                group.create_task(self.local.run(), name="local")
                group.create_task(self.clustermesh.follow(), name="clustermesh")
                group.create_task(self.ways.run(), name="ways")
                group.create_task(self.loop.run(), name="reconcile")
                group.create_task(self.rounds.watch_interfaces(), name="interfaces")
                group.create_task(self._upkeep.watch(), name="vigil")
                group.create_task(self._upkeep.probe(), name="prober")
                group.create_task(self._upkeep.hear(), name="path news")
                await _stopped()
                raise _Stop
        except* _Stop:
            logger.info("stopped; what is in the kernel stays", extra={"instance": self.config.name})

    def _health(self) -> AbstractAsyncContextManager[None]:
        if not self.config.health:
            return nullcontext()
        registry = CollectorRegistry()
        registry.register(Metrics(self))
        registry.register(self.propagation)
        return serve_health(self.config.health, partial(readiness, self), registry)

    def pods_without_interface(self) -> Mapping[bytes, str]:
        """Packed addresses, each with the reason."""
        return self._pod_target.without

    def remotes(self) -> Sequence[Remote]:
        """The remote clusters, without our own."""
        return list(self.clustermesh.remotes.values()) if self.clustermesh else []

    def allowance(self, cluster: str) -> Allowance:
        """What this cluster may say."""
        if cluster == self.config.cluster:
            return OWN_CLUSTER
        remote = self.clustermesh.remotes.get(cluster) if self.clustermesh else None
        return remote.allowance if remote else DEFAULT_ALLOWANCE

    def _make(self, file: RemoteFile, kinds: Sequence[Kind], *, is_local: bool = False) -> Remote:
        return Remote(
            file,
            kinds=kinds,
            store=self.store,
            members=self.members,
            on_change=self.loop.wake,
            timeline=self.timeline,
            pacer=None if is_local else self._pacer,
            is_local=is_local,
            lags=self.lags,
        )

    def _join(self, file: RemoteFile) -> Remote:
        self.timeline.note("joined", file.cluster)
        self.rounds.files_moved = True
        return self._make(file, SHARED_KINDS)

    def _change(self, cluster: str) -> None:
        self.rounds.files_moved = True
        self.mesh.suspicion.reconsider(cluster)
        self.loop.wake()

    def _leave(self, cluster: str) -> None:
        self.rounds.files_moved = True
        self.store.drain(cluster)
        self.members.leave(cluster)
        self.mesh.leave(cluster)
        self._upkeep.forget(cluster)
        self.lags.forget(cluster)
        self.timeline.note("left", cluster)

    def _is_lost(self, cluster: str) -> bool:
        remote = self.clustermesh.remotes.get(cluster) if self.clustermesh else None
        return remote is None or remote.presence.lost_at is not None

    def _settled(self) -> None:
        self.rounds.settled()
        self.lags.settle({cluster for cluster, _ in self.store.dirty}, time.monotonic())
        if self.members.leaving and self._startup.is_in_sync():
            self.members.release()
        self._startup.observe()


async def _stopped() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


async def run_daemon(config: DaemonConfig) -> None:
    """Brings the datapath up, then runs. Raises ConfigError, DatapathError."""
    check(config)
    set_up_memory()
    local = read_local_file(config)
    with alone(config.socket.with_suffix(".lock")), ThreadPoolExecutor(1, thread_name_prefix="kernel") as executor:
        datapath = await asyncio.get_running_loop().run_in_executor(executor, open_datapath, config)
        logger.info("datapath is there", extra={"instance": config.name, "written": ",".join(datapath.written) or "-"})
        await Daemon(config, local, datapath, executor, reconciled=tidy, tidied=tidy).run()
