import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from meshd.testbed.demo import load
from meshd.testbed.demo.results import Load, parse

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    line = await reader.readline()
    if line.startswith(b"GET "):
        body = json.dumps({"pod": "a", "cluster": "cluster1", "peer": "127.0.0.1"}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + body)
    while line and not line.startswith(b"GET "):
        writer.write(b"cluster1/a " + line)
        line = await reader.readline()
    writer.close()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def loaded(capsys: pytest.CaptureFixture[str], port: int, *options: str) -> Load:
    await load.main(load.parse_arguments(["127.0.0.1", str(port), *options]))
    return parse(capsys.readouterr().out.encode().splitlines())


async def test_each_request_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(answer) as port:
        found = await loaded(capsys, port, "--requests=20", "--concurrency=4")
    assert dict(found.by_pod) == {"cluster1/a": 20}
    assert not found.failures


async def test_long_connections_echo_beside_requests(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(answer) as port:
        found = await loaded(capsys, port, "--seconds=0.3", "--rate=50", "--hold=2")
    assert len(found.requests) == 15
    assert [(held.pod, held.error) for held in found.held] == [("cluster1/a", None)] * 2
    assert all(held.echoes > 1 for held in found.held)


async def test_a_server_that_hangs_up_is_a_failure_with_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(hang_up) as port:
        found = await loaded(capsys, port, "--requests=2", "--seconds=0.2", "--hold=1")
    assert len(found.failures) == 2
    assert all(line.error for line in (*found.failures, *found.held))


async def test_nobody_there_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(answer) as port:
        pass
    found = await loaded(capsys, port, "--requests=1")
    assert found.failures[0].error
