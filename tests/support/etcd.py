"""A real etcd for tests: one process on loopback with ports and a data directory of its own.

The `etcd` fixture gives a running one; tests/integration has it without an import. Stopping and starting it again
keeps data and address, `wipe` makes another etcd of it.
"""

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import grpc
import pytest

from tests.support.ports import free_ports
from wire.proto import rpc_pb2, rpc_pb2_grpc

_DEADLINE_S = 20.0


class Etcd:
    """One etcd member. Methods raise AssertionError or grpc.RpcError when etcd does not do as told."""

    def __init__(self, directory: Path, *, options: Sequence[str] = ()) -> None:
        self.directory = directory
        self.options = list(options)
        self.port, self.peer_port = free_ports(2)
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._channel: grpc.Channel | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "etcd does not run"
        return self._process.pid

    def start(self) -> None:
        """Starts etcd and waits until it answers."""
        assert self._process is None, "etcd runs already"
        self.directory.mkdir(parents=True, exist_ok=True)
        peer = f"http://127.0.0.1:{self.peer_port}"
        command = ["etcd", "--name=t", f"--data-dir={self.directory / 'data'}", f"--listen-client-urls={self.url}"]
        command += [f"--advertise-client-urls={self.url}", f"--listen-peer-urls={peer}"]
        command += [f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=t={peer}"]
        command += [f"--initial-cluster-token={os.urandom(4).hex()}", "--logger=zap"]
        command += ["--heartbeat-interval=20", "--election-timeout=100", *self.options]  # a lone member starts at once
        self._log = (self.directory / "etcd.log").open("ab")
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        self._await_health()

    def stop(self) -> None:
        """Ends etcd with SIGTERM; nothing to do if it does not run."""
        self._end(signal_is_kill=False)

    def kill(self) -> None:
        """Ends etcd with SIGKILL; nothing to do if it does not run."""
        self._end(signal_is_kill=True)

    def wipe(self) -> None:
        """Removes the data: the next start is another, empty etcd at the same address."""
        assert self._process is None, "stop etcd first"
        shutil.rmtree(self.directory / "data", ignore_errors=True)

    def etcdctl(self, *arguments: str) -> str:
        """Runs etcdctl against this etcd and returns what it printed."""
        command = ["etcdctl", f"--endpoints={self.address}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=etcdctl_environment(), check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def kv(self) -> Any:
        """The generated stub of etcd's KV service."""
        stub: Any = rpc_pb2_grpc.KVStub
        return stub(self._open_channel())

    def put(self, key: str | bytes, value: str | bytes, *, lease: int = 0) -> int:
        """Puts one key; returns the revision of that put."""
        request = rpc_pb2.PutRequest(key=_bytes(key), value=_bytes(value), lease=lease)
        return int(self.kv.Put(request).header.revision)

    def put_all(self, items: Mapping[str, str]) -> int:
        """Puts several keys in one transaction, so at one revision; returns it."""
        puts = [rpc_pb2.PutRequest(key=key.encode(), value=value.encode()) for key, value in items.items()]
        request = rpc_pb2.TxnRequest(success=[rpc_pb2.RequestOp(request_put=put) for put in puts])
        return int(self.kv.Txn(request).header.revision)

    def delete(self, key: str | bytes, range_end: str | bytes = b"") -> int:
        """Deletes a key or a range; returns the revision after it."""
        request = rpc_pb2.DeleteRangeRequest(key=_bytes(key), range_end=_bytes(range_end))
        return int(self.kv.DeleteRange(request).header.revision)

    def get(self, key: str | bytes) -> bytes | None:
        found = self.kv.Range(rpc_pb2.RangeRequest(key=_bytes(key))).kvs
        return bytes(found[0].value) if found else None

    def keys(self, prefix: str) -> dict[str, bytes]:
        """All keys with this prefix (which must not end in 0xff)."""
        start = prefix.encode()
        end = start[:-1] + bytes([start[-1] + 1])
        found = self.kv.Range(rpc_pb2.RangeRequest(key=start, range_end=end)).kvs
        return {entry.key.decode(): bytes(entry.value) for entry in found}

    def grant_lease(self, ttl_s: int) -> int:
        """A new lease; returns its ID."""
        stub: Any = rpc_pb2_grpc.LeaseStub
        return int(stub(self._open_channel()).LeaseGrant(rpc_pb2.LeaseGrantRequest(TTL=ttl_s)).ID)

    def revoke_lease(self, lease: int) -> int:
        """Ends a lease, as if it had expired; returns the revision at which its keys were deleted."""
        stub: Any = rpc_pb2_grpc.LeaseStub
        request = rpc_pb2.LeaseRevokeRequest(ID=lease)
        return int(stub(self._open_channel()).LeaseRevoke(request).header.revision)

    def compact(self, revision: int) -> None:
        self.kv.Compact(rpc_pb2.CompactionRequest(revision=revision, physical=True))

    def metric(self, name: str) -> float:
        """One of etcd's own metrics, as `name` or `name{label="value",…}`."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=5) as answer:  # noqa: S310
            for line in answer.read().decode().splitlines():
                if line.startswith(f"{name} "):
                    return float(line.rpartition(" ")[2])
        raise AssertionError(f"etcd has no metric {name}")

    def _open_channel(self) -> grpc.Channel:
        if self._channel is None:
            self._channel = grpc.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)])
        return self._channel

    def _await_health(self) -> None:
        deadline = time.monotonic() + _DEADLINE_S
        while time.monotonic() < deadline:
            assert self._process is not None
            assert self._process.poll() is None, (self.directory / "etcd.log").read_text()[-2000:]
            try:
                if self._is_healthy():
                    return
            except OSError:
                time.sleep(0.02)
        self.kill()
        raise AssertionError("etcd did not become healthy: " + (self.directory / "etcd.log").read_text()[-2000:])

    def _is_healthy(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/health", timeout=1) as answer:  # noqa: S310
            return str(json.load(answer)["health"]) == "true"

    def _end(self, *, signal_is_kill: bool) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is None or self._log is None:
            return
        if signal_is_kill:
            self._process.kill()
        else:
            self._process.terminate()
        self._process.wait(_DEADLINE_S)
        self._log.close()
        self._process = self._log = None


def etcdctl_environment() -> dict[str, str]:
    """What etcdctl needs of our environment: the v3 API, nothing that points it elsewhere."""
    return {"PATH": os.environ["PATH"], "ETCDCTL_API": "3"}


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    """A running etcd, ended with the test."""
    member = Etcd(tmp_path / "etcd")
    try:
        member.start()
        yield member
    finally:
        member.kill()


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
