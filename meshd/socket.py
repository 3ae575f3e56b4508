"""The local API: JSON over HTTP on a unix socket that only root may open, for the command line."""

import http.client
import os
import re
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from inspect import isawaitable
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from meshd.config import ConfigError

TIMEOUT_S = 5.0
_CONTROL = re.compile(rb"\\\\|\\[rbf]|\\u00[01][0-9a-f]|\x7f|\xc2[\x80-\x9f]")
"""In JSON, what a terminal would take for a command; a backslash that stands for itself is passed over."""


class SocketError(Exception):
    """Nobody answers at a socket, or not what was asked for; str(error) says what to do."""


@asynccontextmanager
async def serve(path: Path, routes: Mapping[str, Callable[..., object]]) -> AsyncIterator[None]:
    """Serves GET of each route (`/v1/status`) with what its function returns (awaited, if that can be), as JSON, while
    the context lasts. Names in a route (`/v1/services/{namespace}/{name}`) are the function's arguments.

    A socket left behind by a process that died is replaced. Raises ConfigError if none can be there.
    """
    application = web.Application()
    for route, answer in routes.items():
        application.router.add_get(route, _handler(answer))
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await _listen(runner, path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, path: Path) -> None:
    previous = os.umask(0o177)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.unlink(missing_ok=True)
        await web.UnixSite(runner, str(path)).start()
    except OSError as error:
        where, why = error.filename or path, error.strerror or error
        raise ConfigError(f"--run-dir: no socket can be made there: {where}: {why}") from error
    finally:
        os.umask(previous)


def _handler(answer: Callable[..., object]) -> Callable[[web.Request], Any]:
    async def handle(request: web.Request) -> web.Response:
        said = answer(**request.match_info)
        if isawaitable(said):
            said = await said
        return web.Response(body=msgspec.json.encode(said, enc_hook=str), content_type="application/json")

    return handle


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("meshd", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def get(path: Path, route: str) -> Any:
    """The decoded answer to GET `route`. Raises SocketError."""
    connection = _UnixConnection(path)
    try:
        connection.request("GET", route)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SocketError(f"{path}: no answer ({reason}): is the process running, with this --run-dir?") from error
    finally:
        connection.close()
    if response.status != 200:
        raise SocketError(f"{path}: {route} is answered with HTTP {response.status}")
    return msgspec.json.decode(_CONTROL.sub(_visible, body))


def _visible(found: re.Match[bytes]) -> bytes:
    """Names and reasons may come from another cluster: they are shown, and command nobody's terminal."""
    text = found.group()
    return text if text == b"\\\\" else b"\\\\x%02x" % ord(msgspec.json.decode(b'"' + text + b'"'))
