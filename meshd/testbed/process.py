"""Real processes: started in a namespace and a cgroup, recorded in a file, stopped by process id and start time.

A record that is left by a crash does no harm: a process is ours only while its id *and* its start time are those
that were recorded.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from meshd.testbed import netns

POLL_S = 0.02


class StartError(Exception):
    """A process ended while starting or was not ready in time: its name, what it said last, its log."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process runs."""

    namespace: str
    cgroup: Path

    def enter(self) -> None:
        """Moves the calling process here. Raises OSError."""
        (self.cgroup / "cgroup.procs").write_text("0")
        netns.enter(self.namespace)


class Record(msgspec.Struct, frozen=True):
    """What is kept of a started process."""

    name: str
    pid: int
    start_time: int
    """In clock ticks after boot, from /proc/<pid>/stat."""
    argv: tuple[str, ...]

    @property
    def alive(self) -> bool:
        return _start_time(self.pid) == self.start_time


def start(
    name: str, argv: Sequence[str], place: Place, *, records: Path, log: Path, env: Mapping[str, str] | None = None
) -> Record:
    """Starts a process in a session of its own, its output appended to `log`. Raises OSError."""
    log.parent.mkdir(parents=True, exist_ok=True)
    records.mkdir(parents=True, exist_ok=True)

    def prepare() -> None:
        """In the child: it is recorded before it becomes the program, whatever happens to us meanwhile."""
        place.enter()
        _write(Record(name, os.getpid(), _start_time(os.getpid()) or 0, tuple(argv)), records)

    with log.open("ab") as output:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=env,
            start_new_session=True,
            preexec_fn=prepare,
        )
    child.returncode = 0  # it outlives us: nobody shall wait for it when this object goes
    record = load(records, name)
    assert record is not None  # noqa: S101 — the child wrote it, or starting it has failed
    return record


def _write(record: Record, records: Path) -> None:
    temporary = records / f".{record.name}.new"
    temporary.write_bytes(msgspec.json.encode(record))
    os.replace(temporary, records / f"{record.name}.json")


def load(records: Path, name: str) -> Record | None:
    """The record of a process, alive or not."""
    try:
        return msgspec.json.decode((records / f"{name}.json").read_bytes(), type=Record)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def load_all(records: Path) -> list[Record]:
    """All records, sorted by name."""
    found = (load(records, path.stem) for path in sorted(records.glob("*.json")))
    return [record for record in found if record is not None]


def send(record: Record, number: signal.Signals) -> None:
    """Sends a signal, if the process is still the recorded one."""
    if record.alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, number)


def wait_gone(record: Record, *, deadline_s: float) -> bool:
    """True as soon as the process has ended, False if it has not after `deadline_s` seconds."""
    end = time.monotonic() + deadline_s
    while record.alive:
        if time.monotonic() > end:
            return False
        time.sleep(POLL_S)
    return True


def stop(record: Record, records: Path, *, grace_s: float) -> None:
    """SIGTERM, after `grace_s` seconds SIGKILL, and the record goes."""
    send(record, signal.SIGTERM)
    if not wait_gone(record, deadline_s=grace_s):
        send(record, signal.SIGKILL)
        wait_gone(record, deadline_s=5.0)
    (records / f"{record.name}.json").unlink(missing_ok=True)


def wait_ready(record: Record, ready: Callable[[], bool], *, log: Path, deadline_s: float) -> None:
    """Returns when `ready()` holds. Raises StartError when the process ends or the deadline passes."""
    end = time.monotonic() + deadline_s
    while not ready():
        if not record.alive:
            raise StartError(f"{record.name} ended while starting: {_last_line(log)} (log: {log})")
        if time.monotonic() > end:
            raise StartError(f"{record.name} is not ready after {deadline_s:.0f} s: {_last_line(log)} (log: {log})")
        time.sleep(POLL_S)


def listens(pid: int, port: int) -> bool:
    """Does the network namespace of a process have a TCP socket listening on this port?"""
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, _, state, *_ = line.split()
            if state == "0A" and int(local.rpartition(":")[2], 16) == port:
                return True
    return False


def _start_time(pid: int) -> int | None:
    """None if there is no such process, or only its remains (a zombie)."""
    try:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1][:300] if lines else "it said nothing"
