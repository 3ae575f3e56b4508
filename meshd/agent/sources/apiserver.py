"""Requests to the Kubernetes API server, over aiohttp: pages of lists, and watches. What it says is not looked into."""

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aiohttp

from meshd.agent.sources.answers import BadAnswer, Page, decode_page, decode_status
from meshd.agent.sources.credentials import Credentials
from meshd.config import ConfigError

logger = logging.getLogger(__name__)

CONNECT_S, LIST_S, CHANGE_S = 10.0, 60.0, 10.0
#: No object that etcd takes is this long, nor a hundred of them, bytes.
MAX_LINE = 64 << 20
#: A dead connection is noticed after this, s, also while nothing is said on it.
IDLE_S, INTERVAL_S, PROBES = 15, 5, 3
MAX_RETRY_AFTER_S = 60.0
READ_ROLE = "list and watch it (ClusterRole meshd-agent)"
WRITE_ROLE = "get, create, update and delete it (ClusterRole meshd-agent-import)"


class ApiUnavailable(Exception):
    """The API server does not do it now; worth another try, not before `after_s`."""

    def __init__(self, reason: str, after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.after_s = after_s


class HistoryGone(Exception):
    """410: what happened since is no longer known there, everything has to be listed again."""


class NotServed(Exception):
    """404: there is no such kind, or no such object."""


class Conflict(Exception):
    """409: there is one of that name already, or it is another one by now."""


class Refused(Exception):
    """400 or 422: the API server does not take such an object; str(error) says why."""


class ApiServer:
    """Raises the errors above and nothing else, the last two only for `change`.

    `silence_s`: a watch on which nothing is heard is given up.
    """

    def __init__(self, credentials: Credentials, *, silence_s: float) -> None:
        self._credentials = credentials
        self._silence_s = silence_s
        self._session: aiohttp.ClientSession | None = None
        self.url = ""

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
            await asyncio.sleep(0)  # its sockets are closed at the next turn of the loop

    async def list_page(self, path: str, *, limit: int, token: str) -> Page:
        """A page of at most `limit` (0: any number) objects; `token` is that of the page before."""
        parameters = {"limit": str(limit)} if limit else {}
        if token:
            parameters["continue"] = token
        timeout = aiohttp.ClientTimeout(total=LIST_S, sock_connect=CONNECT_S)
        async with self._ask("GET", path, parameters, timeout) as answer:
            return decode_page(await answer.read())

    async def change(self, method: str, path: str, body: bytes = b"") -> bytes:
        """GET, POST, PUT or DELETE of one object; returns the answer, JSON."""
        timeout = aiohttp.ClientTimeout(total=CHANGE_S, sock_connect=CONNECT_S)
        async with self._ask(method, path, {}, timeout, body) as answer:
            return await answer.read()

    async def watch(self, path: str, *, version: str, timeout_s: int) -> AsyncGenerator[list[bytes]]:
        """Lines as they come, first [] when the server has agreed; ends when the server ends it."""
        parameters = {"watch": "1", "allowWatchBookmarks": "true", "resourceVersion": version}
        parameters["timeoutSeconds"] = str(timeout_s)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=self._silence_s)
        async with self._ask("GET", path, parameters, timeout) as answer:
            yield []
            rest = b""
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > MAX_LINE:
                    raise ApiUnavailable(f"{path}: an event of more than {MAX_LINE} bytes")
                if lines:
                    yield [line for line in lines if line]

    @asynccontextmanager
    async def _ask(
        self, method: str, path: str, parameters: dict[str, str], limits: aiohttp.ClientTimeout, body: bytes = b""
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        try:
            access = await asyncio.to_thread(self._credentials.access)
            self.url = access.url
            async with self._open().request(
                method,
                access.url + path,
                params=parameters,
                data=body or None,
                headers=access.headers | ({"Content-Type": "application/json"} if body else {}),
                ssl=access.tls,
                server_hostname=access.server_name or None,
                proxy=access.proxy or None,
                timeout=limits,
                allow_redirects=False,
            ) as answer:
                with _aborting(answer):
                    if answer.status not in (200, 201):
                        await self._refused(path, answer)
                    yield answer
        except TimeoutError as error:
            raise ApiUnavailable(f"{path}: {self.url} said nothing for too long") from error
        except aiohttp.ClientPayloadError as error:
            raise ApiUnavailable(f"{path}: the connection broke off") from error
        except (aiohttp.ClientError, OSError, BadAnswer, ConfigError, ValueError) as error:
            raise ApiUnavailable(f"{path}: {error or type(error).__name__}") from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, socket_factory=_make_socket)
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session

    async def _refused(self, path: str, answer: aiohttp.ClientResponse) -> None:
        status = answer.status
        message = decode_status(await answer.read()).message or answer.reason or ""
        reason = f"{path}: {status} {message}".rstrip()
        if status == 410:
            raise HistoryGone(reason)
        if status == 404:
            raise NotServed(reason)
        if status == 401:
            self._credentials.renew()
            raise ApiUnavailable(f"{reason}: give the agent a valid token or certificate")
        if status == 409:
            raise Conflict(reason)
        if status in (400, 422):
            raise Refused(reason)
        if status == 403:
            role = WRITE_ROLE if "/namespaces/" in path else READ_ROLE
            raise ApiUnavailable(f"{reason}: let the agent {role}")
        raise ApiUnavailable(reason, _retry_after_s(answer))


@contextmanager
def _aborting(answer: aiohttp.ClientResponse) -> Iterator[None]:
    """What is left in the middle is cut: a farewell would need an answer, and nobody waits for it."""
    try:
        yield
    except BaseException:
        if answer.connection and answer.connection.transport:
            answer.connection.transport.abort()
        raise


def _retry_after_s(answer: aiohttp.ClientResponse) -> float:
    text = answer.headers.get("Retry-After", "")
    return min(float(text), MAX_RETRY_AFTER_S) if text.isascii() and text.isdigit() else 0.0


def _make_socket(address: Any) -> socket.socket:
    """One that notices a peer that has vanished, also when there is nothing to send to it."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE_S)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, INTERVAL_S)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, (IDLE_S + PROBES * INTERVAL_S) * 1000)
    return made
