"""The limits that docs/global-services.md names: 64 000 services with 500 000 backends on one node's maps. How long it
takes to compute and write them, to find them again after a restart, which must write nothing, and to change one; and
the memory that it takes, in the process and in the kernel.

The daemon's own computation and reconciler; the records are made here, not read from etcd.
"""

import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from bench.lb_changes import LARGE_SIZES, Realised, realised, record
from bench.report import Aim, report
from meshd.daemon.mesh import SLICE

SERVICES, BACKENDS = 64_000, 500_000
CHANGES = 101
MIB = 1 << 20


def hosts_of(number: int) -> range:
    """The backends of the n-th service: all different, as evenly as it goes."""
    return range(BACKENDS * number // SERVICES, BACKENDS * (number + 1) // SERVICES)


def load(services: Realised) -> int:
    """Entries written."""
    written = 0
    for start in range(0, SERVICES, SLICE):
        numbers = range(start, min(start + SLICE, SERVICES))
        written += services.set(*(record(n, list(hosts_of(n))) for n in numbers))[0]
    return written


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def kernel_mib(services: Realised) -> float:
    """What the kernel says that its two large maps take."""
    total = 0
    for name in LARGE_SIZES:
        shown = subprocess.run(
            ["bpftool", "-j", "map", "show", "pinned", str(services.folder / name)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        total += int(json.loads(shown)["bytes_memlock"])
    return total / MIB


def timed_changes(services: Realised) -> list[float]:
    """Milliseconds for one backend of one service that is replaced, of services all over."""
    taken = []
    for number in range(CHANGES):
        which = number * (SERVICES // CHANGES)
        start = time.perf_counter()
        services.set(record(which, [*hosts_of(which)[1:], BACKENDS + number]))
        taken.append((time.perf_counter() - start) * 1000)
    return sorted(taken)


def main() -> None:
    print("bench lb_limits: about a minute", file=sys.stderr, flush=True)
    rows: list[dict[str, object]] = []

    def row(what: str, value: float, unit: str) -> None:
        rows.append({"what": what, "value": round(value, 2), "unit": unit})

    with realised() as services:
        before = resident_mib()
        start = time.perf_counter()
        row("entries written", load(services), "")
        row("computed and written in", time.perf_counter() - start, "s")
        gc.collect()
        row("memory of the process for it", resident_mib() - before, "MiB")
        row("memory of md_svc4 and md_be4", kernel_mib(services), "MiB")
        taken = timed_changes(services)
        row("one backend replaced, median", taken[len(taken) // 2], "ms")
        row("one backend replaced, slowest of 101", taken[-1], "ms")
        start = time.perf_counter()
        again = services.restarted()
        row("restart: maps read back in", time.perf_counter() - start, "s")
        start = time.perf_counter()
        written = again.set(*services.records.values())[0]
        row("restart: computed again in", time.perf_counter() - start, "s")
        row("restart: entries written", written, "")
    report("lb_limits", rows, [Aim("entries that a restart writes", "0", float(written), written == 0)])


if __name__ == "__main__":
    main()
