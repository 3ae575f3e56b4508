"""A real `meshd agent` process over a folder of manifests, and what to ask it."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

import meshd.socket
from tests.support import kubernetes
from tests.support.ports import free_port

DEADLINE_S = 20.0


def eventually(condition: Callable[[], object], what: str = "the condition") -> None:
    """Waits until the condition holds. Raises AssertionError after the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} does not hold after {DEADLINE_S:.0f} s"
        time.sleep(0.02)


class AgentProcess:
    """One agent. `settings` override those that make tests quick."""

    def __init__(self, folder: Path, etcd_url: str, *, name: str = "agent", **settings: object) -> None:
        self.manifests = folder / "manifests"
        self.manifests.mkdir(parents=True, exist_ok=True)
        self._folder = folder / name
        self._folder.mkdir()
        self._log = self._folder / "log"
        self._socket = self._folder / "run" / "c1" / "agent.sock"
        values: dict[str, object] = {"cluster": "c1", "cluster_id": 1, "etcd": etcd_url, "leader_ttl_s": 2}
        self.health = f"127.0.0.1:{free_port()}"
        values |= {
            "heartbeat_s": 1,
            "health": self.health,
            "run_dir": str(self._folder / "run"),
            "manifests": str(self.manifests),
        }
        (self._folder / "agent.yaml").write_text(yaml.safe_dump(values | settings))
        self.command = [sys.executable, "-m", "meshd", "agent", "--config", str(self._folder / "agent.yaml")]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the agent does not run"
        return self._process.pid

    def start(self) -> None:
        assert self._process is None, "the agent runs already"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self.command, stdout=log, stderr=log)

    def start_and_publish(self) -> None:
        """Starts it and waits until everything stands in etcd."""
        self.start()
        eventually(self.is_settled, "published")

    def stop(self) -> int:
        """Ends it with SIGTERM; returns its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def wait(self) -> int:
        """Waits until it ends by itself; returns its exit code."""
        assert self._process is not None, "the agent does not run"
        code = self._process.wait(DEADLINE_S)
        self._process = None
        return code

    def _end(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(number)
        return self.wait()

    def status(self) -> dict[str, Any]:
        """What it says of itself, {} if nobody answers."""
        try:
            answer: dict[str, Any] = meshd.socket.get(self._socket, "/v1/status")
        except meshd.socket.SocketError:
            return {}
        return answer

    def fetch(self, path: str) -> tuple[int, str]:
        """Status and body of an answer of its health port."""
        try:
            with urllib.request.urlopen(f"http://{self.health}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def phase(self) -> str:
        return str(self.status().get("etcd", {}).get("phase", ""))

    def is_settled(self) -> bool:
        """Everything it knows stands in etcd, as far as it knows."""
        published = self.status().get("published", {})
        return bool(published.get("announced")) and published["pending"] == 0

    def log(self) -> str:
        return self._log.read_text()

    def write(self, name: str, *documents: Mapping[str, Any]) -> None:
        """Puts a file in place at once, as an editor or a tool would."""
        self.write_text(name, yaml.safe_dump_all([dict(each) for each in documents]))

    def write_text(self, name: str, text: str) -> None:
        aside = self.manifests / f".{name}"
        aside.write_text(text)
        os.replace(aside, self.manifests / name)

    def remove(self, name: str) -> None:
        (self.manifests / name).unlink()


def deployment(name: str, count: int, *, network: str = "10.0.0") -> list[kubernetes.Document]:
    """Ready pods of one workload, with addresses from `<network>.1` on."""
    labels = {"app": name}
    return [kubernetes.pod(f"{name}-{n}", f"{network}.{n}", labels=labels) for n in range(1, count + 1)]
