"""Brings the programs into the kernel: compiled by a child process, pinned, attached to the cgroup.

What is there already is used: with the same sources, flags and cgroup a second call writes nothing. The tc programs
are attached by attach.py.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from datapath import bpf
from datapath.compile import Failure, Request
from datapath.hooks import ensure_hooks
from datapath.layout import MAGLEV_PATTERN, MAPS, MapSpec
from datapath.maglev import DEFAULT_SIZE, ENTRY_BYTES
from datapath.pins import Attachment, Pins, Programs
from datapath.source import Source, read_source

_COMPILE_TIMEOUT_S = 120
_LOG_LINES = 40


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """`cgroup` is the cgroup v2 folder whose sockets are balanced; `sizes`: entries per map where not the default;
    `maglev_size`: entries of a Maglev table, one of datapath.maglev.SIZES; `attachment`: how to interfaces.
    """

    bpffs: Path
    instance: str
    cgroup: Path
    sizes: Mapping[str, int] = field(default_factory=dict)
    maglev_size: int = DEFAULT_SIZE
    attachment: Attachment = Attachment.AUTO


@dataclass(frozen=True, slots=True)
class Loaded:
    """`folder` holds the maps (for `Maps`), `programs` what attach.py attaches; `written` names what was changed."""

    folder: Path
    programs: Programs
    build: str
    written: tuple[str, ...]


class LoadError(Exception):
    """A program does not compile or the kernel refuses it. `log` has the compiler's or verifier's words."""

    def __init__(self, failure: Failure, log: str) -> None:
        super().__init__(f"{failure.program}: {failure.reason}; {failure.remedy}\n{log}".rstrip())
        self.program = failure.program
        self.log = log


class PinMismatch(Exception):
    """A pinned map is not what these programs expect."""


def ensure_loaded(settings: LoadSettings) -> Loaded:
    """Programs and maps pinned, cgroup hooks attached. Raises PinsError, PinMismatch, LoadError, HookError."""
    pins = Pins(settings.bpffs, settings.instance)
    pins.create()
    source = read_source(pins.folder, settings.sizes, settings.maglev_size)
    programs = pins.programs(source.build, settings.attachment)
    written: list[str] = []
    with _locked(pins.folder):
        _check_maps(pins.folder, settings)
        if not programs.folder.is_dir():
            _load(source, pins, programs)
            _check_maps(pins.folder, settings)
            written.append("programs")
        written += ensure_hooks(pins.links, programs, settings.cgroup)
        _remove_other_builds(pins, source.build)
    return Loaded(pins.folder, programs, source.build, tuple(written))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _load(source: Source, pins: Pins, programs: Programs) -> None:
    """Pin all programs or none: the build's folder gets its name when it is complete."""
    loading = pins.builds / "loading"
    shutil.rmtree(loading, ignore_errors=True)
    loading.mkdir(mode=0o700)
    _run_child(Request(source.text, list(source.flags), str(loading)))
    loading.rename(programs.folder)


def _run_child(request: Request) -> None:
    child = subprocess.run(
        [sys.executable, "-m", "datapath.compile"],
        input=json.dumps(asdict(request)),
        capture_output=True,
        text=True,
        timeout=_COMPILE_TIMEOUT_S,
        check=False,
    )
    log = "\n".join(child.stderr.splitlines()[-_LOG_LINES:])
    if child.returncode:
        reason = f"the compiling process ended with {child.returncode}"
        raise LoadError(Failure("mesh.bpf.c", reason, "the messages below are its last words"), log)
    failure = json.loads(child.stdout)
    if failure is not None:
        raise LoadError(Failure(**failure), log)


def _check_maps(folder: Path, settings: LoadSettings) -> None:
    """bcc uses a map that is pinned already whatever it looks like, so look first."""
    for name, spec in MAPS.items():
        if not (folder / name).exists():
            continue
        with bpf.opened(folder / name) as fd:
            info = bpf.map_info(fd)
        wanted = _expected(name, spec, settings)
        if info != wanted:
            raise PinMismatch(
                f"{folder / name} is {info}, expected {wanted}: uninstall the instance, then start it again"
            )


def _expected(name: str, spec: MapSpec, settings: LoadSettings) -> bpf.MapInfo:
    value_size = settings.maglev_size * ENTRY_BYTES if name == MAGLEV_PATTERN else spec.value_size
    return bpf.MapInfo(spec.kind, spec.key_size, value_size, settings.sizes.get(name, spec.size))


def _remove_other_builds(pins: Pins, build: str) -> None:
    for path in pins.builds.iterdir():
        if path.name != build:
            shutil.rmtree(path)
