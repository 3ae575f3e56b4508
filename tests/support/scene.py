"""A daemon between two real clusters (etcd, proxy, mutual TLS), with a strict fake in the place of the kernel."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from zlib import crc32

import pytest

from certs.authority import Authority
from certs.names import Kind as LeafKind
from certs.names import Leaf
from meshd.daemon.checks import read_local_file
from meshd.daemon.config import DaemonConfig
from meshd.daemon.datapath import Datapath
from meshd.daemon.kernel import MAPS, MapTarget, PinnedMaps
from meshd.daemon.podtarget import PodTarget
from meshd.daemon.policing import POLICY_MAPS
from meshd.daemon.program import Daemon
from meshd.daemon.report import Report
from meshd.daemon.restoration import restore
from meshd.daemon.routetarget import RouteTarget
from meshd.daemon.wantedroutes import BOTH
from tests.support import records
from tests.support.kernel import FakeInterfaces, FakeMaps, random_faults
from tests.support.kernelroutes import FakeExports, FakeRoutes
from tests.support.ports import free_port
from tests.support.proxied import ProxiedCluster, new_authority
from tests.support.surroundings import FakeSurvey

DEADLINE_S = 60.0
"""Longer than a cluster that was refused may have to wait until it is tried again (30 s)."""


@dataclass
class Scene:
    """Cluster1 has the daemon, on node n1; cluster2 is a remote."""

    folder: Path
    authority: Authority
    one: ProxiedCluster
    two: ProxiedCluster
    maps: FakeMaps = field(default_factory=FakeMaps)
    interfaces: FakeInterfaces = field(default_factory=FakeInterfaces)
    routes: FakeRoutes = field(default_factory=FakeRoutes)
    exports: FakeExports = field(default_factory=FakeExports)
    health_port: int = field(default_factory=free_port)
    reconciled: list[dict[str, set[str]]] = field(default_factory=list)
    """Frontends with their backends as each daemon called itself reconciled."""
    kernel: PinnedMaps | None = None
    """Real maps in the place of the fake ones."""

    @property
    def _maps(self) -> PinnedMaps:
        return self.kernel or self.maps

    @property
    def mesh_folder(self) -> Path:
        return self.folder / "mesh"

    def config(self) -> DaemonConfig:
        return DaemonConfig(
            cluster="cluster1",
            cluster_id=1,
            node="n1",
            local=self.folder / "local.yaml",
            clustermesh=self.mesh_folder,
            bpffs=self.folder,
            cgroup=self.folder,
            run_dir=self.folder / "run",
            health=f"127.0.0.1:{self.health_port}",
        )

    @asynccontextmanager
    async def daemon(self) -> AsyncIterator[Daemon]:
        """A daemon on the fake kernel as it is, until the end of the block."""
        with ThreadPoolExecutor(1) as executor:
            target = MapTarget(self._maps)
            pods = PodTarget(
                self._maps, find=self.interfaces.find, attach=self.interfaces.attach, police=self.interfaces.police
            )
            held = {name: target.dump(name) for name in (*MAPS, *POLICY_MAPS)}
            routes = RouteTarget(self.routes, self.exports)
            held_routes = {name: routes.dump(name) for name in sorted(BOTH)}
            datapath = Datapath(target, pods, held, FakeSurvey(), routes, held_routes, 77, ())
            daemon = Daemon(
                self.config(),
                read_local_file(self.config()),
                datapath,
                executor,
                reconciled=lambda: self.reconciled.append(self.backends()),
            )
            async with asyncio.TaskGroup() as group:  # the test fails at once if the daemon does
                task = group.create_task(daemon.run())
                try:
                    yield daemon
                except TimeoutError as error:
                    error.add_note(str(Report(daemon).status()))
                    raise
                task.cancel()

    def backends(self) -> dict[str, set[str]]:
        """Frontends with their backends, as the kernel would balance them."""
        held = {name: self._maps.dump(name) for name in MAPS}
        frontends = restore(held, max_clusters=255).services.frontends
        names = {6: "TCP", 17: "UDP"}
        return {f"{a}:{p}/{names[t]}": {str(b[0]) for b in backends} for (a, p, t), backends in frontends.items()}


async def until(fact: Callable[[], object], what: str = "") -> None:
    """Waits until the fact is true."""
    async with asyncio.timeout(DEADLINE_S):
        while not fact():  # noqa: ASYNC110 — the facts are no events
            await asyncio.sleep(0.01)


@pytest.fixture
def scene(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Every tenth write to the maps fails. A test that cannot wait for what it reads, as it is about texts or about the
    writes themselves, says `scene.maps.fails = no_faults`.
    """
    authority = new_authority(tmp_path / "ca")
    one = ProxiedCluster(tmp_path, "cluster1", authority, tmp_path / "certs1")
    two = ProxiedCluster(tmp_path, "cluster2", authority, tmp_path / "certs2")
    try:
        one.start()
        two.start()
        (tmp_path / "mesh").mkdir()
        (tmp_path / "local.yaml").write_text(one.remote_file(Leaf(LeafKind.DAEMON, "cluster1")))
        (tmp_path / "mesh" / "cluster2").write_text(two.remote_file(Leaf(LeafKind.REMOTE, "cluster1")))
        one.etcd.put_all(
            records.cluster("cluster1", 1)
            | records.node("cluster1", 1, "n1", "172.18.1.11", "10.0.0.0/24")
            | records.ip("cluster1", "10.0.0.1", "172.18.1.11", 65537)
            | records.ip("cluster1", "10.0.0.2", "172.18.1.12", 65537)
            | records.local_service("cluster1", "default/rebel-base", "30.1.1.1", "10.0.0.1", "10.0.0.2")
        )
        two.etcd.put_all(
            records.cluster("cluster2", 2)
            | records.node("cluster2", 2, "n1", "172.18.2.11", "20.0.0.0/24")
            | records.identity("cluster2", 131073)
            | records.ip("cluster2", "20.0.0.1", "172.18.2.11", 131073)
            | records.service("cluster2", 2, "default/rebel-base", "20.0.0.1", "20.0.0.2")
        )
        made = Scene(tmp_path, authority, one, two)
        seed = crc32(request.node.name.encode())
        print(f"one write to the maps in ten fails, seed {seed}")
        made.maps.fails = random_faults(seed)
        made.interfaces.add(ip_address("10.0.0.1"), 7)
        yield made
    finally:
        one.stop()
        two.stop()
