"""Network namespaces, cgroups and a bpffs for tests: named with a random tag, gone at the end, also after a failure.

Sockets belong to the namespace, and to the cgroup, in which they were made: so most tests need no child process.
"""

import ctypes
import os
import secrets
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO, TypeVar

from tests.support.leftovers import owned

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def ip(*words: str) -> str:
    """Run ip(8) in the host's namespace; its output."""
    return _run("ip", *words)


def cgroup2() -> Path:
    """Where cgroup v2 is mounted."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, folder, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(folder)
    raise RuntimeError("no cgroup2 in /proc/mounts: mount -t cgroup2 none DIR")


@dataclass(frozen=True)
class Namespace:
    """A named network namespace."""

    name: str

    @property
    def path(self) -> Path:
        return Path("/run/netns") / self.name

    def ip(self, *words: str) -> str:
        """Run ip(8) on this namespace; its output."""
        return _run("ip", "-n", self.name, *words)

    def run(self, *words: str, cgroup: Path | None = None, timeout: float = 60) -> str:
        """Run a program inside (and in `cgroup`); its output. Raises CalledProcessError."""
        return _run(*self.command(*words, cgroup=cgroup), timeout=timeout)

    def command(self, *words: str, cgroup: Path | None = None) -> list[str]:
        """The words that start a program inside, for subprocess.Popen."""
        inside = ["nsenter", f"--net={self.path}", *words]
        if cgroup is None:
            return inside
        return ["sh", "-c", 'echo 0 > "$0"/cgroup.procs && exec "$@"', str(cgroup), *inside]

    def sysctl(self, name: str, value: str) -> None:
        self.call(lambda: Path("/proc/sys/net", name).write_text(value))

    def call(self, function: Callable[[], T]) -> T:
        """Run a function in a thread that has entered the namespace; its result or exception."""
        results: list[T] = []
        errors: list[BaseException] = []

        def enter() -> None:
            try:
                with self.path.open() as handle:
                    if _libc.setns(handle.fileno(), _CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                results.append(function())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def socket(self, family: int, kind: int, protocol: int = 0, *, timeout: float = 5) -> socket.socket:
        """A socket of this namespace, to be used from anywhere."""
        made = self.call(lambda: socket.socket(family, kind, protocol))
        made.settimeout(timeout)
        return made


@dataclass
class Machine:
    """What one test made: everything carries `tag`."""

    tag: str
    stack: ExitStack = field(default_factory=ExitStack)
    owned: TextIO | None = None

    def namespace(self, name: str) -> Namespace:
        """A new namespace with loopback up and no IPv6 duplicate detection."""
        made = Namespace(f"md-{self.tag}-{name}")
        ip("netns", "add", made.name)
        self.stack.callback(ip, "netns", "del", made.name)
        made.ip("link", "set", "lo", "up")
        for scope in ("default", "all"):
            made.sysctl(f"ipv6/conf/{scope}/accept_dad", "0")
        return made

    def cgroup(self, name: str) -> Path:
        folder = cgroup2() / f"md-{self.tag}-{name}"
        folder.mkdir()
        self.stack.callback(folder.rmdir)
        return folder

    def bpffs(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        if self.owned is not None:
            print(folder, file=self.owned, flush=True)
        _run("mount", "-t", "bpf", "bpf", str(folder))
        self.stack.callback(_run, "umount", str(folder))
        return folder

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        """A child process that ends with the test."""
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.stack.callback(_stop, child)
        return child


@contextmanager
def machine() -> Iterator[Machine]:
    """A fresh machine, taken down in reverse order."""
    tag = secrets.token_hex(3)
    with owned(tag) as file, ExitStack() as stack:
        yield Machine(tag, stack, file)


@contextmanager
def joined(cgroup: Path) -> Iterator[None]:
    """This process in `cgroup` for the time of the block: sockets made in it belong there."""
    before = next(
        line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0:")
    )
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (cgroup2() / before.lstrip("/") / "cgroup.procs").write_text(str(os.getpid()))


def link(one: Namespace, name: str, other: Namespace, other_name: str) -> None:
    """A veth between two namespaces, both ends up."""
    one.ip("link", "add", name, "type", "veth", "peer", "name", other_name, "netns", other.name)
    one.ip("link", "set", name, "up")
    other.ip("link", "set", other_name, "up")


def mac_of(namespace: Namespace, device: str) -> str:
    """The hardware address as text."""
    words = namespace.ip("-o", "link", "show", "dev", device).split()
    return words[words.index("link/ether") + 1]


def _run(*words: str, timeout: float = 60) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _stop(child: subprocess.Popen[str]) -> None:
    child.terminate()
    try:
        child.wait(5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    if child.stdout:
        child.stdout.close()
