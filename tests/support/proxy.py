"""A real `meshd proxy` process on loopback in front of an etcd, with a CA and certificates of its own."""

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

import grpc
import grpc.aio

from certs.authority import init_ca, load_ca
from certs.leaves import issue
from certs.names import Leaf, server_name
from meshd.socket import SocketError, get
from tests.support.etcd import etcdctl_environment
from tests.support.ports import free_port
from wire.proto import kv_pb2, rpc_pb2

_DEADLINE_S = 20.0


class Proxy:
    """The proxy of cluster `c1`. It can be stopped and started again at the same address.

    Channels lead to `reached_at`: the address, unless a test puts something in between.
    """

    def __init__(
        self, directory: Path, etcd_url: str, *, options: tuple[str, ...] = (), certs: Path | None = None
    ) -> None:
        self.directory = directory
        self.certs = certs or directory / "certs"
        self.etcd_url = etcd_url
        self.options = options
        self.environment: dict[str, str] = {}  # beside the test's own
        self.address = f"127.0.0.1:{free_port()}"
        self.reached_at = self.address
        self.authority = load_ca(certs) if certs else init_ca(self.certs, now=datetime.now(UTC))
        self.server = self.certificate("server-c1", addresses=["127.0.0.1"])
        self.log = directory / "proxy.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._log_file: IO[bytes] | None = None

    def sibling(self, directory: Path) -> "Proxy":
        """Another proxy of the same cluster, with the same certificates."""
        directory.mkdir()
        return Proxy(directory, self.etcd_url, options=self.options, certs=self.certs)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def certificate(self, leaf: str, *, addresses: list[str] | None = None, age: timedelta = timedelta()) -> Path:
        """Issues a certificate (its folder is returned), as if `age` ago."""
        now = datetime.now(UTC) - age
        return issue(self.authority, Leaf.parse(leaf), self.certs, now=now, addresses=addresses or [])

    def start(self) -> None:
        """Starts the process; readiness is the reader's to wait for, as in real life."""
        command = [sys.executable, "-m", "meshd", "proxy", "--cluster=c1", f"--listen={self.address}"]
        command += [f"--etcd={self.etcd_url}", f"--run-dir={self.directory / 'run'}", *self.options]
        command += [f"--cert={self.server / 'tls.crt'}", f"--key={self.server / 'tls.key'}"]
        command += [f"--ca={self.certs / 'ca/ca.crt'}"]
        self._log_file = self.log.open("ab")
        environment = os.environ | self.environment
        self._process = subprocess.Popen(command, stdout=self._log_file, stderr=self._log_file, env=environment)

    def stop(self) -> int:
        """Ends the process with SIGTERM; returns its exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._ended()

    def stop_code(self) -> int:
        """Waits until the process ends by itself; returns its exit code."""
        return self._ended()

    def kill(self) -> None:
        """Ends the process with SIGKILL, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._ended()

    def status(self) -> Any:
        return get(self.directory / "run/c1/proxy.sock", "/v1/status")

    def await_status(self, condition: Callable[[Any], bool]) -> Any:
        """Waits until the status fulfils the condition; returns it."""
        deadline = time.monotonic() + _DEADLINE_S
        seen: Any = None
        while time.monotonic() < deadline:
            assert self._process is not None
            assert self._process.poll() is None, self.log.read_text()
            try:
                seen = self.status()
                if condition(seen):
                    return seen
            except SocketError:
                pass
            time.sleep(0.02)
        raise AssertionError(f"not in time: {seen}\n{self.log.read_text()}")

    def await_synced(self) -> None:
        self.await_status(lambda status: bool(status["upstream"]["state"] == "synced"))

    def etcdctl(self, certificate: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs etcdctl as this reader, whatever comes of it."""
        command = self.etcdctl_command(certificate, *arguments)
        environment = etcdctl_environment()
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30, check=False)

    def etcdctl_command(self, certificate: Path, *arguments: str) -> list[str]:
        tls = [f"--cacert={certificate / 'ca.crt'}", f"--cert={certificate / 'tls.crt'}"]
        endpoint = f"--endpoints=https://{self.address}"
        return ["etcdctl", endpoint, *tls, f"--key={certificate / 'tls.key'}", "--dial-timeout=3s", *arguments]

    @asynccontextmanager
    async def channel(self, certificate: Path | None, *, ca: Path | None = None) -> AsyncIterator[grpc.aio.Channel]:
        """A channel of a reader with this certificate, or with none."""
        authorities = ca or self.certs / "ca/ca.crt"
        credentials = grpc.ssl_channel_credentials(
            authorities.read_bytes(),
            (certificate / "tls.key").read_bytes() if certificate else None,
            (certificate / "tls.crt").read_bytes() if certificate else None,
        )
        options = [
            ("grpc.ssl_target_name_override", server_name("c1")),
            ("grpc.max_receive_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.min_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 200),
        ]
        async with grpc.aio.secure_channel(self.reached_at, credentials, options=options) as channel:
            yield channel

    def _ended(self) -> int:
        assert self._process is not None
        assert self._log_file is not None
        code = self._process.wait(_DEADLINE_S)
        self._log_file.close()
        self._process = self._log_file = None
        return code


class Reader:
    """Range and Watch over a channel, decoded. As Cilium it waits for a server, unless told otherwise."""

    def __init__(self, channel: grpc.aio.Channel, *, patient: bool = True) -> None:
        self._patient = patient
        self._range = channel.unary_unary(
            "/etcdserverpb.KV/Range",
            request_serializer=rpc_pb2.RangeRequest.SerializeToString,
            response_deserializer=rpc_pb2.RangeResponse.FromString,
        )
        self._watch = channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=rpc_pb2.WatchRequest.SerializeToString,
            response_deserializer=rpc_pb2.WatchResponse.FromString,
        )

    async def range(self, key: bytes, range_end: bytes = b"", **options: Any) -> rpc_pb2.RangeResponse:
        request = rpc_pb2.RangeRequest(key=key, range_end=range_end, **options)
        answer: rpc_pb2.RangeResponse = await self._range(request, timeout=_DEADLINE_S, wait_for_ready=self._patient)
        return answer

    @asynccontextmanager
    async def watch(self, key: bytes, range_end: bytes = b"", **options: Any) -> AsyncIterator["WatchCall"]:
        """A stream with one watch, whose `created` has been read."""
        call = WatchCall(self._watch(metadata=(("hasleader", "true"),), wait_for_ready=self._patient))
        try:
            await call.create(key, range_end, **options)
            yield call
        finally:
            call.cancel()


class StreamEnded(Exception):
    """The server ended a stream."""


class WatchCall:
    """One watch stream, seen by its reader."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def create(self, key: bytes, range_end: bytes = b"", **options: Any) -> rpc_pb2.WatchResponse:
        create = rpc_pb2.WatchCreateRequest(key=key, range_end=range_end, **options)
        await self._call.write(rpc_pb2.WatchRequest(create_request=create))
        answer = await self.read()
        assert answer.created
        return answer

    async def read(self) -> rpc_pb2.WatchResponse:
        answer = await self._call.read()
        if not isinstance(answer, rpc_pb2.WatchResponse):
            raise StreamEnded
        return answer

    async def read_until(self, revision: int) -> list[rpc_pb2.WatchResponse]:
        """All answers up to the one with an event of this revision."""
        answers = [await self.read()]
        while not any(event.kv.mod_revision >= revision for event in answers[-1].events):
            assert not answers[-1].canceled, answers[-1]
            answers.append(await self.read())
        return answers

    async def ask_progress(self) -> None:
        await self._call.write(rpc_pb2.WatchRequest(progress_request=rpc_pb2.WatchProgressRequest()))

    async def read_all(self) -> list[kv_pb2.Event]:
        """All events up to the server's answer to a request for its progress, which must come after them."""
        await self.ask_progress()
        events: list[kv_pb2.Event] = []
        while (answer := await self.read()).watch_id >= 0:
            assert not answer.canceled, answer
            events += answer.events
        return events

    async def code(self) -> Any:
        """How the stream ended."""
        return await self._call.code()

    def cancel(self) -> None:
        self._call.cancel()


@asynccontextmanager
async def reader(proxy: Proxy, certificate: Path) -> AsyncIterator[Reader]:
    async with proxy.channel(certificate) as channel:
        yield Reader(channel)
