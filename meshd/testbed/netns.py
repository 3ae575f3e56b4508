"""Network namespaces: made, wired, entered and removed with iproute2, nftables and setns(2).

Only the *network* namespace is entered: `ip netns exec` would hide bpffs and the cgroups (it mounts a new /sys).
"""

import ctypes
import os
import socket
import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

FOLDER = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)


class NetworkError(Exception):
    """A command of iproute2 or nftables failed: what it was given and what it said."""


def names(prefix: str) -> list[str]:
    """The named namespaces whose names begin with `prefix`."""
    return sorted(path.name for path in FOLDER.glob(f"{prefix}*")) if FOLDER.is_dir() else []


def exists(name: str) -> bool:
    return (FOLDER / name).exists()


def enter(name: str) -> None:
    """Moves the calling thread into a named network namespace (setns). Raises OSError."""
    descriptor = os.open(FOLDER / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"setns {name}: {os.strerror(number)}")
    finally:
        os.close(descriptor)


def entering(name: str) -> Callable[[], None]:
    """For subprocess's `preexec_fn`: the child starts inside the namespace."""
    return lambda: enter(name)


def inside(name: str, function: Callable[[], T]) -> T:
    """Calls a function in a thread that has entered the namespace; sockets that it makes stay there."""

    def call() -> T:
        enter(name)
        return function()

    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(call).result()


def ip(commands: Iterable[str], *, namespace: str | None = None) -> None:
    """Runs commands of ip(8), one a string, in a namespace. Raises NetworkError at the first that fails."""
    where = ["-n", namespace] if namespace else []
    _run(["ip", *where, "-batch", "-"], "\n".join(commands) + "\n")


def nft(ruleset: str, *, namespace: str) -> None:
    """Applies nftables commands as one transaction. Raises NetworkError."""
    _run(["nft", "-f", "-"], ruleset, namespace=namespace)


def sysctl(settings: Iterable[str], *, namespace: str) -> None:
    """Sets kernel parameters of the namespace, as `net.ipv4.ip_forward=1`. Raises OSError."""

    def write() -> None:
        for setting in settings:
            key, _, value = setting.partition("=")
            Path("/proc/sys", *key.split(".")).write_text(value)

    inside(namespace, write)


def devices(namespace: str) -> list[str]:
    """Names of the network devices in a namespace. Raises OSError."""
    return inside(namespace, lambda: [name for _, name in socket.if_nameindex()])


def output(argv: list[str], *, namespace: str) -> str:
    """What a program prints inside a namespace. Raises NetworkError if it fails."""
    return _run(argv, "", namespace=namespace)


def remove(namespaces: Iterable[str]) -> None:
    """Removes namespaces with everything in them. Absent is success."""
    present = [name for name in namespaces if exists(name)]
    if present:
        ip([f"netns delete {name}" for name in present])


def _run(argv: list[str], given: str, *, namespace: str | None = None) -> str:
    result = subprocess.run(
        argv,
        input=given,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=entering(namespace) if namespace else None,
    )
    if result.returncode != 0:
        inside = f" in {namespace}" if namespace else ""
        raise NetworkError(
            f"{' '.join(argv)}{inside}: {result.stderr.strip() or result.stdout.strip()}\n{given}".rstrip()
        )
    return result.stdout
