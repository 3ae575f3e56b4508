"""For `bench lb`: what one change of a service costs, and Maglev tables. The daemon's own computation and reconciler,
on real maps.
"""

import secrets
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address
from pathlib import Path

from bench.lb_nodes import bpf_folder
from bench.report import spread
from datapath.loader import LoadSettings, ensure_loaded
from datapath.maglev import build_table
from datapath.maps import Maps
from globalsvc.merge import GlobalService, Place, merge
from meshd.daemon.kernel import MAPS, MapShape, MapTarget
from meshd.daemon.restoration import restore
from meshd.daemon.services import Services
from meshd.reconcile.delta import Delta
from meshd.reconcile.execution import execute
from meshd.testbed import cgroup as cgroups
from wire.local import LocalBackend, LocalService, ServicePort
from wire.records import L4Addr

GLOBAL = {"service.cilium.io/global": "true"}
LARGE = 5_000
LARGE_SIZES = {"md_svc4": 1 << 20, "md_be4": 1 << 19}
"""What docs/global-services.md advises for 64 000 services with 500 000 backends."""
GROWTH = (1_000, 10_000, 60_000)
ROUNDS = 21
GROWTH_ROUNDS = 100
BACKENDS = 4
NEW_HOST = 300_000
TABLE_SECONDS = 0.5


class Realised:
    """Services that are merged, computed and written as the daemon does it."""

    def __init__(self, folder: Path, maps: Maps) -> None:
        self.folder, self._maps = folder, maps
        self.records: dict[str, LocalService] = {}
        self._services = Services(self._merge)
        self._target = MapTarget(maps)
        self._delta = Delta(MapShape())

    def restarted(self) -> "Realised":
        """A new process that has read the maps, and knows the same records."""
        new = Realised(self.folder, self._maps)
        new.records = self.records
        held = {name: new._target.dump(name) for name in MAPS}
        for name, entries in held.items():
            new._delta.restore(name, entries)
        new._services.restore(restore(held, max_clusters=255).services)
        return new

    def _merge(self, name: str) -> GlobalService | None:
        return merge(self.records[name], {}, place=Place("cluster1"))

    def set(self, *records: LocalService) -> tuple[int, int]:
        """Entries and bytes written or removed for them."""
        names = [f"{record.namespace}/{record.name}" for record in records]
        self.records.update(zip(names, records, strict=True))
        for (map, key), value in self._services.update(names).items():
            self._delta.want(map, key, value)
        round = self._delta.plan()
        if round is None:
            return 0, 0
        outcome = execute(round, self._target, MapShape(), self._delta.realised, self._delta.possible)
        if outcome.failed:
            raise RuntimeError(next(iter(outcome.failed.values())))
        for map, written in outcome.done.items():
            self._delta.record(map, written)
        done = [item for written in outcome.done.values() for item in written.items()]
        return len(done), sum(len(key) + len(value or b"") for key, value in done)


def record(number: int, hosts: list[int]) -> LocalService:
    ports = {"": L4Addr("TCP", 8080)}
    return LocalService(
        namespace="ns",
        name=f"s{number}",
        annotations=GLOBAL,
        cluster_ips=[str(IPv4Address("30.1.0.0") + number)],
        ports=[ServicePort(port=80)],
        backends=[LocalBackend(ip=str(IPv4Address("10.0.0.0") + host), ports=ports, state="active") for host in hosts],
    )


def hosts_of(number: int) -> list[int]:
    """The backends of the n-th small service."""
    return [BACKENDS * number + i for i in range(BACKENDS)]


@contextmanager
def realised() -> Iterator[Realised]:
    instance = f"lb{secrets.token_hex(2)}"
    cgroup = cgroups.find_root() / instance
    with tempfile.TemporaryDirectory() as folder, bpf_folder(Path(folder)) as bpffs:
        cgroup.mkdir()
        try:
            loaded = ensure_loaded(LoadSettings(bpffs, instance, cgroup, LARGE_SIZES))
            with Maps(loaded.folder) as maps:
                yield Realised(loaded.folder, maps)
        finally:
            cgroups.remove(cgroup)


def _timed(services: Realised, *records: LocalService) -> tuple[float, int, int]:
    """Milliseconds, entries, bytes."""
    start = time.perf_counter()
    entries, size = services.set(*records)
    return (time.perf_counter() - start) * 1000, entries, size


def measure_changes() -> list[dict[str, object]]:
    """One backend of a large service goes and comes back."""
    hosts = list(range(LARGE))
    with realised() as services:
        services.set(record(0, hosts))
        taken = []
        for number in range(ROUNDS):
            gone = hosts[: 7 * number] + hosts[7 * number + 1 :]
            taken.append(_timed(services, record(0, gone)))
            services.set(record(0, hosts))
    return [_row(f"one backend of {LARGE} goes", taken)]


def measure_growth() -> list[dict[str, object]]:
    """A backend of one small service is replaced, beside more and more other services; of services all over, and in
    turns, so that all see the same machine.
    """
    with ExitStack() as stack:
        sizes = {there: stack.enter_context(realised()) for there in GROWTH}
        for there, services in sizes.items():
            for start in range(0, there, 1000):
                services.set(*(record(n, hosts_of(n)) for n in range(start, start + 1000)))
        taken: dict[int, list[tuple[float, int, int]]] = {there: [] for there in GROWTH}
        for number in range(2 * GROWTH_ROUNDS):
            for there, services in sizes.items():
                which = number % GROWTH_ROUNDS * (there // GROWTH_ROUNDS)
                found = _timed(services, record(which, [*hosts_of(which)[1:], NEW_HOST + which]))
                services.set(record(which, hosts_of(which)))
                if number >= GROWTH_ROUNDS:  # memory that was just allocated is not what is asked for
                    taken[there].append(found)
    first = [ms for ms, _, _ in taken[GROWTH[0]]]
    return [
        _row(f"one backend of {BACKENDS} is replaced, {there} services", found)
        | {f"of {GROWTH[0]} services'": spread([ms / one for (ms, _, _), one in zip(found, first, strict=True)])}
        for there, found in taken.items()
    ]


def _row(what: str, taken: list[tuple[float, int, int]]) -> dict[str, object]:
    times, entries, sizes = zip(*taken, strict=True)
    return {
        "what": what,
        "ms": spread(times),
        "entries": statistics.median(entries),
        "bytes": statistics.median(sizes),
    }


def measure_tables() -> list[dict[str, object]]:
    """Tables a second, and the part of them that changes hands beside that of the backend that goes."""
    rows: list[dict[str, object]] = []
    for count, size in ((4, 251), (100, 251), (100, 4093), (100, 16381)):
        names = [f"{IPv4Address('10.0.0.0') + n}:80/TCP" for n in range(count)]
        made, start = 0, time.perf_counter()
        while time.perf_counter() - start < TABLE_SECONDS:
            build_table(names, size=size)
            made += 1
        rate = made / (time.perf_counter() - start)
        moved = [_moved(names, gone, size) for gone in range(0, count, max(1, count // 10))]
        rows.append({"backends": count, "entries": size, "tables a second": rate, "moved, one goes": spread(moved)})
    return rows


def _moved(names: list[str], gone: int, size: int) -> float:
    left = names[:gone] + names[gone + 1 :]
    before = [names[index] for index in build_table(names, size=size)]
    after = [left[index] for index in build_table(left, size=size)]
    return sum(1 for old, new in zip(before, after, strict=True) if old not in (names[gone], new)) / size
