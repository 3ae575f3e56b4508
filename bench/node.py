"""A node for benchmarks of the daemon alone: a network namespace of its own with an underlay device, maps and a cgroup
that end with the benchmark, and one `meshd daemon` on them.
"""

import ctypes
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.etcd_peers import cpu_s
from datapath.pins import Pins
from meshd.socket import SocketError, get
from tests.support.netns import Machine

CLONE_NEWNET = 0x40000000
DEADLINE_S = 120.0
POLL_S = 0.05
NAME = "cluster1.n1"
ROOT = Path(__file__).parents[1]


def enter_namespace() -> None:
    """This process, and all that it starts from now on, in a network namespace of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare: this benchmark needs root")
    for words in ("set lo up", "add underlay type veth peer name other-end", "set underlay up", "set other-end up"):
        subprocess.run(["ip", "link", *words.split()], check=True)
    subprocess.run(["ip", "address", "add", "172.18.1.11/16", "dev", "underlay"], check=True)


@dataclass(frozen=True)
class NodeDaemon:
    """The daemon of cluster1's node n1, reads `folder`/local.yaml and `folder`/mesh."""

    process: "subprocess.Popen[str]"
    folder: Path

    @classmethod
    def start(cls, made: Machine, folder: Path, **settings: object) -> "NodeDaemon":
        """With these settings beside the usual ones; it has heard its own cluster, and ends with `made`."""
        (folder / "config.yaml").write_text(json.dumps(settings))  # JSON is YAML
        argv = [sys.executable, "-P", "-m", "meshd", "daemon", "--cluster=cluster1", "--cluster-id=1", "--node=n1"]
        argv += [f"--local={folder / 'local.yaml'}", f"--clustermesh={folder / 'mesh'}", "--device=underlay"]
        argv += [f"--bpffs={made.bpffs(folder / 'bpf')}", f"--cgroup={made.cgroup('bench')}"]
        argv += [f"--run-dir={folder / 'run'}", f"--config={folder / 'config.yaml'}"]
        log = made.stack.enter_context((folder / "daemon.log").open("w"))
        process = subprocess.Popen(argv, stdout=log, stderr=log, text=True, cwd=ROOT)
        made.stack.callback(process.wait)
        made.stack.callback(process.kill)
        daemon = cls(process, folder)
        daemon.wait_for(lambda status: None not in status["events"].values(), "the daemon's start")
        return daemon

    def status(self) -> dict[str, Any]:
        """Empty if it does not answer."""
        try:
            answer: dict[str, Any] = get(self.folder / "run" / NAME / "daemon.sock", "/v1/status")
        except SocketError:
            return {}
        return answer

    def wait_for(self, fact: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """The first status of which the fact is true. Raises TimeoutError."""
        end = time.monotonic() + DEADLINE_S
        while True:
            status = self.status()
            if status and fact(status):
                return status
            if time.monotonic() > end:
                raise TimeoutError(f"{what} did not come within {DEADLINE_S:.0f} s")
            time.sleep(POLL_S)

    def map(self, name: str) -> Path:
        """Where a map is pinned."""
        return Pins(self.folder / "bpf", NAME).folder / name

    def cpu_s(self) -> float:
        return cpu_s(self.process.pid)

    def memory_mb(self, field: str = "VmRSS") -> float:
        """VmRSS: what it has now; VmHWM: what it had at most."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1000
        raise RuntimeError(f"/proc of the daemon has no {field}")


def held(status: dict[str, Any], map: str) -> int:
    """How many entries the daemon has written into a map."""
    return int(next(target["realised"].get(map, 0) for target in status["targets"] if target["name"] == "maps"))


def link_of(status: dict[str, Any], cluster: str) -> dict[str, Any]:
    """What it says of its connection to a cluster, empty if it knows of none."""
    return next((entry["link"] for entry in status["clusters"] if entry["cluster"] == cluster), {})
