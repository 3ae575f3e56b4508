"""Many readers of one prefix in one process, for `bench proxy_fanout`: counts messages as they come, undecoded.

One watcher in ten is decoded: nothing lost, in order, and how long after a watch at etcd itself each event came.
Prints "ready"; then reads a line `REVISION` from stdin, waits until the decoded watchers have heard it, prints one JSON
object.

python -m bench.watch_readers PREFIX CONNECTIONS WATCHERS TARGET [CERTIFICATE_FOLDER SERVER_NAME [ETCD]]
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from bench.report import percentile
from wire.keys import interval
from wire.proto import rpc_pb2

_WATCH = "/etcdserverpb.Watch/Watch"
_DECODED = 10  # one in so many
_DEADLINE_S = 30.0
_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),  # a connection for each channel
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]


@dataclass
class Heard:
    """What the decoded watchers have heard: revisions of events by watcher, and when each first came."""

    revisions: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    at: list[tuple[int, float]] = field(default_factory=list)
    moved: asyncio.Event = field(default_factory=asyncio.Event)


class Readers:
    """All watchers of one run."""

    def __init__(self, prefix: str) -> None:
        self.messages = 0
        self.bytes = 0
        self.created = asyncio.Semaphore(0)
        self.heard = Heard()
        self.direct: dict[int, float] = {}
        self._interval = interval(prefix)

    async def requests(self, watchers: int) -> AsyncIterator[Any]:
        start, end = self._interval
        create = rpc_pb2.WatchRequest(create_request=rpc_pb2.WatchCreateRequest(key=start, range_end=end))
        for _ in range(watchers):
            yield create.SerializeToString()
        await asyncio.Event().wait()  # the stream stays open

    async def count(self, channel: grpc.aio.Channel, watchers: int) -> None:
        """One stream whose messages are only counted, after those that say that its watches are there."""
        left = watchers
        call: Any = channel.stream_stream(_WATCH)(self.requests(watchers))
        async for message in call:
            if left:
                left -= 1
                self.created.release()
            else:
                self.messages += 1
                self.bytes += len(message)

    async def decode(self, channel: grpc.aio.Channel, watchers: int, number: int) -> None:
        """One stream whose messages are looked into."""
        call: Any = channel.stream_stream(_WATCH)(self.requests(watchers))
        async for message in call:
            now = time.monotonic()
            response = rpc_pb2.WatchResponse.FromString(message)
            if response.created:
                self.created.release()
                self.heard.revisions[number, response.watch_id] = []
                continue
            self.messages += 1
            self.bytes += len(message)
            revisions = [event.kv.mod_revision for event in response.events]
            self.heard.revisions[number, response.watch_id] += revisions
            self.heard.at += [(revision, now) for revision in dict.fromkeys(revisions)]
            self.heard.moved.set()

    async def compare(self, channel: grpc.aio.Channel) -> None:
        """A watch at etcd itself: when each revision came there."""
        call: Any = channel.stream_stream(_WATCH)(self.requests(1))
        async for message in call:
            now = time.monotonic()
            response = rpc_pb2.WatchResponse.FromString(message)
            if response.created:
                self.created.release()
            for event in response.events:
                self.direct.setdefault(event.kv.mod_revision, now)

    async def until(self, revision: int) -> None:
        async with asyncio.timeout(_DEADLINE_S):
            while any(not seen or seen[-1] < revision for seen in self.heard.revisions.values()):
                self.heard.moved.clear()
                await self.heard.moved.wait()

    def result(self, cpu_s: float) -> dict[str, object]:
        histories = list(self.heard.revisions.values())
        added = [(at - self.direct[revision]) * 1e3 for revision, at in self.heard.at if revision in self.direct]
        return {
            "messages": self.messages,
            "bytes": self.bytes,
            "events": sum(map(len, histories)),
            "alike": all(history == histories[0] for history in histories),
            "ordered": all(history == sorted(history) for history in histories),
            "per_watcher": len(histories[0]) if histories else 0,
            "added_p50_ms": percentile(added, 50) if added else 0.0,
            "added_p99_ms": percentile(added, 99) if added else 0.0,
            "cpu_s": cpu_s,
        }


def credentials(folder: Path) -> grpc.ChannelCredentials:
    files = [(folder / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt")]
    return grpc.ssl_channel_credentials(*files)


async def main(prefix: str, connections: int, watchers: int, target: str, *more: str) -> None:
    folder, name, etcd = (*more, "", "", "")[:3]
    readers = Readers(prefix)
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(asyncio.TaskGroup())
        tasks = []

        async def channel(address: str) -> grpc.aio.Channel:
            if not folder or address == etcd:
                return await stack.enter_async_context(grpc.aio.insecure_channel(address, options=_OPTIONS))
            options = [*_OPTIONS, ("grpc.ssl_target_name_override", name)]
            secure = grpc.aio.secure_channel(address, credentials(Path(folder)), options=options)
            return await stack.enter_async_context(secure)

        if etcd:
            tasks.append(group.create_task(readers.compare(await channel(etcd))))
        for number in range(connections):
            opened = await channel(target)
            decoded = number % _DECODED == 0
            reading = readers.decode(opened, watchers, number) if decoded else readers.count(opened, watchers)
            tasks.append(group.create_task(reading))
        for _ in range(connections * watchers + bool(etcd)):
            await readers.created.acquire()
        print("ready", flush=True)
        began = time.process_time()
        line = await asyncio.to_thread(sys.stdin.readline)
        if line.strip():
            await readers.until(int(line))
        print(json.dumps(readers.result(time.process_time() - began)), flush=True)
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]))
