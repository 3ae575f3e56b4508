"""Can a testbed stand on this machine? Root, eBPF, cgroup v2, network namespaces, the programs; each by trying it."""

import ctypes
import os
import platform
import shutil
import subprocess
from pathlib import Path

from meshd.testbed import cgroup

PROGRAMS = ("ip", "nft", "etcd", "etcdctl")
_BPF_SYSCALL = {"x86_64": 321, "aarch64": 280}
_BPF_MAP_CREATE = 0
_BPF_MAP_TYPE_ARRAY = 2
_CLONE_NEWNET = 0x40000000


def first_problem() -> str | None:
    """One sentence that says what is missing and what helps, or None."""
    if os.geteuid() != 0:
        return "meshd's testbed needs root: eBPF and network namespaces do: run this as root."
    for problem in (_programs(), _cgroup2(), _namespaces(), _bpf()):
        if problem:
            return problem
    return None


def _programs() -> str | None:
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    return (
        f"meshd's testbed needs the programs {', '.join(missing)}: run .ci/setup, it installs them."
        if missing
        else None
    )


def _cgroup2() -> str | None:
    try:
        root = cgroup.find_root()
    except cgroup.CgroupError as error:
        return f"meshd's testbed needs cgroups: {error}."
    probe = root / f"meshd-check{os.getpid()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        return (
            f"meshd's testbed needs to make cgroups below {root}, which is refused ({error.strerror}): "
            "not inside a plain container."
        )
    return None


def _namespaces() -> str | None:
    child = os.fork()
    if child == 0:  # a forked child: unshare must not change this process
        os._exit(ctypes.CDLL(None).unshare(_CLONE_NEWNET) != 0)
    _, status = os.waitpid(child, 0)
    if status:
        return "meshd's testbed needs network namespaces, which this machine refuses: not inside a plain container."
    return None


def _bpf() -> str | None:
    number = _BPF_SYSCALL.get(platform.machine())
    if number is None:
        return f"meshd's testbed does not know eBPF's system call on {platform.machine()}: use x86-64 or arm64."
    attributes = (ctypes.c_uint32 * 32)(_BPF_MAP_TYPE_ARRAY, 4, 4, 1)
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(number, _BPF_MAP_CREATE, ctypes.byref(attributes), ctypes.sizeof(attributes))
    if descriptor < 0:
        reason = os.strerror(ctypes.get_errno())
        return (
            f"meshd's testbed needs eBPF, which this machine refuses ({reason}): "
            "a kernel with CONFIG_BPF_SYSCALL, and CAP_BPF."
        )
    os.close(descriptor)
    return None


def ensure_bpffs(path: Path) -> None:
    """Mounts the BPF file system if it is not there. It stays: others may use it from then on. Raises OSError."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "bpf" and where == str(path):
            return
    path.mkdir(parents=True, exist_ok=True)
    result = subprocess.run(["mount", "-t", "bpf", "bpf", str(path)], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise OSError(f"mounting bpffs at {path}: {result.stderr.strip()}")
