"""A session of the proxy without a network: its other end is h2's client, or any bytes."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import h2.config
import h2.connection
import h2.events

from etcdproxy.http2.call import Call
from etcdproxy.http2.frames import GOAWAY, HEAD_BYTES, read_head
from etcdproxy.http2.session import Session
from etcdproxy.http2.turn import Turn

HEADERS = [
    (":method", "POST"),
    (":scheme", "https"),
    (":path", "/etcdserverpb.Watch/Watch"),
    (":authority", "c1"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]


class MemoryLink:
    """Takes up to `capacity` bytes until they are fetched; if it is None all that comes, `step` bytes at a time."""

    step = 1 << 20

    def __init__(self, capacity: int | None = None) -> None:
        self.sent = bytearray()
        self.capacity = capacity
        self.is_closed = False

    def room(self) -> int:
        if self.is_closed:
            return 0
        return self.step if self.capacity is None else max(self.capacity - len(self.sent), 0)

    def write(self, data: bytes) -> None:
        if not self.is_closed:
            self.sent += data

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True

    def fetch(self) -> bytes:
        data = bytes(self.sent)
        self.sent.clear()
        return data


class Pair:
    """A session and h2's client that talks to it. `flow` moves bytes both ways until nobody has any."""

    def __init__(self, serve: Callable[[Call], Coroutine[Any, Any, None]], *, capacity: int | None = None) -> None:
        self.link = MemoryLink(capacity)
        turn = Turn(asyncio.get_running_loop())
        self.session = Session(self.link, serve, turn, name="remote-c2", address="ipv4:127.0.0.1:1")
        self.client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.client.initiate_connection()
        self.events: list[h2.events.Event] = []
        self.goaways: list[bytes] = []
        self.acknowledges = True

    async def flow(self) -> None:
        for _ in range(10_000):
            for _ in range(4):  # tasks of calls, then the session's flush
                await asyncio.sleep(0)
            out, back = self.client.data_to_send(), self.link.fetch()
            if not out and not back:
                return
            if out:
                self.session.receive(out)
            if back:
                self._hear(back)
                if self.link.capacity is not None:
                    self.session.flush()  # there is room again
        raise AssertionError("the two never come to rest")

    def open(self, headers: list[tuple[str, str]] = HEADERS, *, end: bool = False) -> int:
        stream = self.client.get_next_available_stream_id()
        self.client.send_headers(stream, headers, end_stream=end)
        return stream

    def body(self, stream: int) -> bytes:
        data = (event for event in self.events if isinstance(event, h2.events.DataReceived))
        return b"".join(event.data for event in data if event.stream_id == stream and event.data)

    def trailers(self, stream: int) -> dict[str, str]:
        """The last headers of a stream."""
        found: dict[str, str] = {}
        for event in self.events:
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived) and event.stream_id == stream:
                found |= {str(name): str(value) for name, value in event.headers or []}
        return found

    def _without_goaways(self, data: bytes) -> bytes:
        """h2's client hears nothing after a GOAWAY; real ones do."""
        kept, at = bytearray(), 0
        while at < len(data):
            length, kind, _, _ = read_head(data, at)
            end = at + HEAD_BYTES + length
            if kind == GOAWAY:
                self.goaways.append(data[at + HEAD_BYTES : end])
            else:
                kept += data[at:end]
            at = end
        return bytes(kept)

    def _hear(self, data: bytes) -> None:
        for event in self.client.receive_data(self._without_goaways(data)):
            self.events.append(event)
            if isinstance(event, h2.events.DataReceived) and self.acknowledges:
                self.client.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
