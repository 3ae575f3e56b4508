"""What the proxy's benchmarks compare: an etcd, `etcd grpc-proxy` of the same package without TLS, ours with mTLS."""

import os
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.etcd import Etcd
from tests.support.ports import free_port
from tests.support.proxy import Proxy

_DEADLINE_S = 20.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Peers:
    """Running processes. `certificate` is the folder of what a reader of ours shows."""

    directory: Path
    etcd: Etcd
    proxy: Proxy
    certificate: Path

    @contextmanager
    def theirs(self) -> Iterator[tuple[str, int]]:
        """Address and process of a new `etcd grpc-proxy`, ended with the context."""
        address = f"127.0.0.1:{free_port()}"
        command = ["etcd", "grpc-proxy", "start", f"--endpoints={self.etcd.address}", f"--listen-addr={address}"]
        process = subprocess.Popen(command, cwd=self.directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _await_answer(f"http://{address}/metrics")
            yield address, process.pid
        finally:
            process.kill()
            process.wait()


@contextmanager
def running() -> Iterator[Peers]:
    """An etcd and our proxy in a directory of their own; both end with the context."""
    with tempfile.TemporaryDirectory(prefix="meshd-bench-") as name:
        directory = Path(name)
        etcd = Etcd(directory / "etcd", options=("--quota-backend-bytes=4000000000",))
        proxy: Proxy | None = None
        try:
            etcd.start()
            proxy = Proxy(directory / "proxy", etcd.url)
            certificate = proxy.certificate("remote-c2")
            proxy.start()
            proxy.await_synced()
            yield Peers(directory, etcd, proxy, certificate)
        finally:
            if proxy is not None:
                proxy.kill()
            etcd.kill()


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has taken so far, in user and kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def watchers_at(etcd: Etcd) -> int:
    """How many watches etcd itself says it has."""
    return int(etcd.metric("etcd_debugging_mvcc_watcher_total"))


def _await_answer(url: str) -> None:
    end = time.monotonic() + _DEADLINE_S
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()  # noqa: S310
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
