"""The client's side against gRPC's own server, and against ends that behave badly."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from etcdproxy.http2 import following
from etcdproxy.http2.following import CallLost, open_call

_PATH = "/a/B"
Handler = Callable[[Any, Any], AsyncIterator[bytes]]


@asynccontextmanager
async def server_of(handler: Handler) -> AsyncIterator[str]:
    """A server of gRPC's whose one method is this; its address."""
    options = [("grpc.max_send_message_length", -1), ("grpc.http2.max_ping_strikes", 0)]
    server = grpc.aio.server(options=options)
    method: Any = grpc.stream_stream_rpc_method_handler(handler)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a", {"B": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@asynccontextmanager
async def end_of(speak: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """Something that listens and then does as it likes; its address."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await speak(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_messages_of_any_size_arrive_whole_and_the_end_is_told() -> None:
    sizes = [0, 1, 16_379, 16_380, 5 << 20, 3, 17 << 20, *range(0, 2_000, 7)]

    async def answer(requests: Any, context: Any) -> AsyncIterator[bytes]:
        asked = await anext(aiter(requests))
        for number, size in enumerate(sizes):
            yield asked + bytes([number % 251]) * size
        await context.abort(grpc.StatusCode.OUT_OF_RANGE, "no more of it")

    async with server_of(answer) as address, open_call(address, _PATH, None) as call:
        call.send(b"?")
        for number, size in enumerate(sizes):
            assert await call.read() == b"?" + bytes([number % 251]) * size
        for _ in range(2):  # and it stays ended
            with pytest.raises(CallLost, match="OUT_OF_RANGE: no more of it"):
                await call.read()


async def test_a_method_that_is_not_there_is_said() -> None:
    async def answer(requests: Any, context: Any) -> AsyncIterator[bytes]:
        yield b""

    async with server_of(answer) as address, open_call(address, "/a/C", None) as call:
        with pytest.raises(CallLost, match="UNIMPLEMENTED"):
            await call.read()


async def test_what_is_not_read_is_not_taken_from_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_HELD_BYTES", 2 << 20)
    number, sent = 40, 0

    async def answer(requests: Any, context: Any) -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(number):
            yield bytes(1 << 20)
            sent += 1

    async with server_of(answer) as address, open_call(address, _PATH, None) as call:
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.2)  # nothing can be awaited here: that nothing happens any more
        assert 2 <= sent < number
        for _ in range(number):
            assert len(await call.read()) == 1 << 20  # all of it, once it is read


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PING_S", 0.1), ("SILENCE_S", 0.4), ("_LOOK_S", 0.03)):
        monkeypatch.setattr(following, name, value)


@pytest.mark.usefixtures("hasty")
async def test_an_end_that_answers_pings_may_be_silent_and_one_that_does_not_is_left() -> None:
    async def answer(requests: Any, context: Any) -> AsyncIterator[bytes]:
        await asyncio.sleep(1.0)  # what is tested is that this much silence is borne
        yield b"late"

    async with server_of(answer) as address, open_call(address, _PATH, None) as call:
        assert await call.read() == b"late"

    async def listen(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            pass

    async with end_of(listen) as address, open_call(address, _PATH, None) as call:
        with pytest.raises(CallLost, match="no answer for"):
            await call.read()


async def test_nobody_is_there() -> None:
    async with end_of(lambda *_: asyncio.sleep(0)) as address:
        pass
    with pytest.raises(CallLost, match=r"UNAVAILABLE: .*Connect call failed"):
        async with open_call(address, _PATH, None):
            pass


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (b"", "the connection has ended"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "no HTTP/2: a frame of"),
        (b"\0\0\0\x04\0\0\0\0\0" + b"\0\0\x08\x07\0\0\0\0\0" + bytes(8), "etcd ends the connection"),  # GOAWAY
        (b"\0\0\0\x04\0\0\0\0\0" + b"\0\0\x04\x03\0\0\0\0\x01" + b"\0\0\0\x08", "etcd ended the call"),  # RST_STREAM
        (b"\0\0\0\x04\0\0\0\0\0" + b"\0\0\x05\0\0\0\0\0\x01" + b"\x01\0\0\0\0", "a compressed message"),
        (b"\0\0\0\x04\0\0\0\0\0" + b"\0\0\x04\x08\0\0\0\0\x09" + bytes(4), "no HTTP/2"),  # a window update of nothing
    ],
)
async def test_an_end_that_speaks_otherwise_is_left(words: bytes, problem: str) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(words)
        await writer.drain()
        if words:
            while await reader.read(1 << 16):
                pass

    async with end_of(speak) as address, open_call(address, _PATH, None) as call:
        with pytest.raises(CallLost, match=problem):
            async with asyncio.timeout(10):
                await call.read()
