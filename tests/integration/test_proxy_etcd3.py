"""python-etcd3, a client that is not ours, reads through a proxy with mutual TLS."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from tests.support.etcd import Etcd
from tests.support.proxy import Proxy

pytestmark = pytest.mark.etcd


class Client:
    """The reader's process, asked line by line."""

    def __init__(self, proxy: Proxy, certificate: Path) -> None:
        command = [sys.executable, "-m", "tests.support.etcd3_reader", proxy.address, str(certificate)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def send(self, *command: object) -> None:
        self._pipe(self.process.stdin).write(json.dumps(command) + "\n")
        self._pipe(self.process.stdin).flush()

    def read(self) -> Any:
        return json.loads(self._pipe(self.process.stdout).readline())

    def ask(self, *command: object) -> Any:
        self.send(*command)
        return self.read()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


@pytest.fixture
def client(proxy: Proxy) -> Iterator[Client]:
    made = Client(proxy, proxy.certificate("remote-c2"))
    try:
        yield made
    finally:
        made.close()


def test_get_and_get_prefix(etcd: Etcd, client: Client) -> None:
    etcd.put_all({f"cilium/state/{letter}": letter.upper() for letter in "bca"})
    revision = etcd.put("cilium/state/a", "again")
    assert client.ask("get", "cilium/state/a") == ["again", revision]
    assert client.ask("get", "cilium/state/none") is None
    assert client.ask("get_prefix", "cilium/state/", {}) == [
        ["cilium/state/a", "again"],
        ["cilium/state/b", "B"],
        ["cilium/state/c", "C"],
    ]
    last_first = {"sort_order": "descend", "sort_target": "mod"}
    assert client.ask("get_prefix", "cilium/state/", last_first)[0] == ["cilium/state/a", "again"]


def test_watch_prefix(etcd: Etcd, client: Client) -> None:
    for _ in range(2):  # a second watch on the same stream, after the first was cancelled
        assert client.ask("watch_prefix", "cilium/state/", 3) == "watching"
        put = etcd.put("cilium/state/a", "1")
        etcd.put("cilium/other", "not ours")
        etcd.put("cilium/state/b", "2")
        deleted = etcd.delete("cilium/state/a")
        assert client.read() == [
            ["PutEvent", "cilium/state/a", put],
            ["PutEvent", "cilium/state/b", put + 2],
            ["DeleteEvent", "cilium/state/a", deleted],
        ]


def test_what_is_not_granted_or_not_there_is_an_error_it_understands(etcd: Etcd, client: Client) -> None:
    etcd.put("cilium/cache/a", "1")
    denied = client.ask("get", "cilium/cache/a")
    assert "permission denied" in denied["error"]
    written = client.ask("put", "cilium/state/a", "1")
    assert "error" in written
    assert etcd.get("cilium/state/a") is None
    assert client.ask("get", "cilium/state/a") is None  # and it goes on
