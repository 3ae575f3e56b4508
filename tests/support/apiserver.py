"""An API server for tests: real HTTPS on loopback; list, pages, watch, bookmarks and 410 after Kubernetes' own
documentation (API concepts), and the faults that real ones have.

It runs in a thread of its own; all methods may be called from any other.
"""

import asyncio
import base64
import contextlib
import json
import re
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml
from aiohttp import web

from certs.authority import init_ca
from certs.leaves import issue
from certs.names import Kind, Leaf
from meshd.agent.decoding import kind_of
from meshd.agent.sources.answers import RESOURCES
from tests.support.apirules import refusal

T = TypeVar("T")
Document = dict[str, Any]
Name = tuple[str, str]

_NAMESPACED = re.compile(r"(/apis?(?:/[^/]+){1,2})/namespaces/([^/]+)/([^/]+)(?:/([^/]+))?")
_PATHS = {resource.kind: resource.path for resource in RESOURCES}
_CLUSTER_WIDE = {"Namespace", "Node", "CiliumClusterwideNetworkPolicy"}


@dataclass(slots=True)
class Faults:
    """What the server does wrong, by will of the test. `refuse`: paths with the status that they are answered with."""

    refuse: dict[str, int] = field(default_factory=dict)
    retry_after_s: int = 0
    gone_as_event: bool = False
    silent: bool = False
    forget_pages: int = 0
    cut_lists: int = 0


@dataclass(frozen=True, slots=True)
class _Happening:
    version: int
    path: str
    line: bytes


class ApiServer:
    """`url` and `kubeconfig` say how to reach it; `requests` what it was asked."""

    def __init__(self, folder: Path, *, bookmark_s: float = 0.1) -> None:
        self.folder = folder
        self.token = "a-token"  # noqa: S105 - of a test
        self.port = 0
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.changes: list[tuple[str, str]] = []
        self.faults = Faults()
        self.absent: set[str] = set()
        self._bookmark_s = bookmark_s
        self._objects: dict[str, dict[Name, bytes]] = {path: {} for path in _PATHS.values()}
        self._version = 100
        self._compacted = 0
        self._history: list[_Happening] = []
        self._pages: dict[str, list[bytes]] = {}
        self._lock = threading.Lock()
        self._watches: set[asyncio.Task[Any]] = set()
        self._news = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner | None = None
        self._tls = self._make_tls()

    def __enter__(self) -> "ApiServer":
        self._thread.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def kubeconfig(self, *, address: str = "", **changes: Any) -> Path:
        """Writes one; `changes` replace fields of the user, `address` is where something stands in between."""
        url = f"https://{address}" if address else self.url
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "c",
                    "cluster": {"server": url, "certificate-authority": str(self.folder / "server" / "ca.crt")},
                }
            ],
            "users": [{"name": "u", "user": {"token": self.token} | changes}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        file = self.folder / "kubeconfig"
        file.write_text(yaml.safe_dump(content))
        return file

    def start(self) -> None:
        """On the same port as before."""
        self._call(self._start())

    def stop(self) -> None:
        """Nobody listens any more; open connections are cut."""
        self._call(self._stop())

    def cut(self) -> None:
        """Ends every watch in the middle of it."""
        self._loop.call_soon_threadsafe(self._cut)

    def put(self, *documents: Document) -> None:
        """Creates or changes these objects."""
        with self._lock:
            for document in documents:
                kind = kind_of(document)
                assert kind, document
                path, name = _PATHS[kind], _name(document)
                self._version += 1
                data = _with_version(document, name[0], self._version)
                verb = "MODIFIED" if name in self._objects[path] else "ADDED"
                self._objects[path][name] = data
                self._history.append(_Happening(self._version, path, _event(verb, data)))
        self._wake()

    def delete(self, *documents: Document) -> None:
        with self._lock:
            for document in documents:
                kind = kind_of(document)
                assert kind, document
                path, name = _PATHS[kind], _name(document)
                del self._objects[path][name]
                self._version += 1
                data = _with_version(document, name[0], self._version)
                self._history.append(_Happening(self._version, path, _event("DELETED", data)))
        self._wake()

    def objects(self, path: str) -> list[Document]:
        """Everything of a kind."""
        with self._lock:
            return [json.loads(data) for data in self._objects[path].values()]

    def say(self, path: str, line: bytes) -> None:
        """Sends any line to those who watch this path."""
        with self._lock:
            self._version += 1
            self._history.append(_Happening(self._version, path, line + b"\n"))
        self._wake()

    def compact(self) -> None:
        """Forgets what has happened so far."""
        with self._lock:
            self._version += 1
            self._compacted = self._version
            self._history.clear()

    def rewind(self) -> None:
        """Versions go backwards, as after etcd was restored from a backup."""
        with self._lock:
            self._version, self._compacted = 10, 0
            self._history.clear()

    def count(self, path: str, *, watch: bool) -> int:
        """How often it was asked for a list (its first page), or a watch."""
        with self._lock:
            return sum(
                asked == path and ("watch" in query) == watch and "continue" not in query
                for asked, query in self.requests
            )

    def watched_from(self, path: str) -> list[int]:
        """The versions from which it was asked for watches."""
        with self._lock:
            return [
                int(query["resourceVersion"]) for asked, query in self.requests if asked == path and "watch" in query
            ]

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(20)

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        self._cut()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _cut(self) -> None:
        for task in self._watches:
            task.cancel()

    def _wake(self) -> None:
        self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _make_tls(self) -> ssl.SSLContext:
        now = datetime.now(UTC)
        leaf = issue(
            init_ca(self.folder, now=now), Leaf(Kind.SERVER, "c1"), self.folder, now=now, addresses=["127.0.0.1"]
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(leaf / "tls.crt", leaf / "tls.key")
        return context

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path, query = request.path, dict(request.query)
        with self._lock:
            self.requests.append((path, query))
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if (scheme.lower(), token) != ("bearer", self.token):
            return _status(401, "Unauthorized")
        if status := self.faults.refuse.get(path):
            headers = {"Retry-After": str(self.faults.retry_after_s)} if self.faults.retry_after_s else {}
            return _status(status, "refused for a test", headers)
        if named := _NAMESPACED.fullmatch(path):
            return await self._one(request, f"{named[1]}/{named[3]}", named[2], named[4])
        if path in self.absent or path not in self._objects:
            return _status(404, "the server could not find the requested resource")
        serve: Callable[[web.Request, str, dict[str, str]], Awaitable[web.StreamResponse]]
        serve = self._watch if "watch" in query else self._list
        return await serve(request, path, query)

    async def _one(self, request: web.Request, path: str, namespace: str, name: str | None) -> web.Response:
        """GET, POST, PUT and DELETE of one object, after the API concepts: names, versions, preconditions."""
        data = await request.read()
        document: Document = json.loads(data) if data else {}
        name = name or document.get("metadata", {}).get("name", "")
        with self._lock:
            self.changes.append((request.method, f"{namespace}/{name}"))
            found = self._objects[path].get((namespace, name))
        current: Document = json.loads(found) if found else {}
        if status := refusal(request.method, document, current):
            return _status(*status)
        if request.method == "DELETE":
            self.delete(current)
            return web.json_response(current)
        if request.method != "GET":
            uid = current.get("metadata", {}).get("uid") or f"uid-{self._version}"
            self.put(document | {"metadata": document["metadata"] | {"uid": uid}})
        with self._lock:
            body = self._objects[path][namespace, name]
        return web.Response(body=body, status=201 if request.method == "POST" else 200, content_type="application/json")

    async def _list(self, request: web.Request, path: str, query: dict[str, str]) -> web.StreamResponse:
        limit, token = int(query.get("limit", 0)), query.get("continue", "")
        if self.faults.cut_lists > 0 and token:
            self.faults.cut_lists -= 1
            if request.transport:
                request.transport.abort()
        if self.faults.forget_pages > 0 and token:
            self.faults.forget_pages -= 1
            return _status(410, "The provided continue parameter is too old")
        with self._lock:
            if token:
                version, start = json.loads(base64.b64decode(token))
                items = self._pages[f"{path} {version}"]
            else:
                version, start, items = self._version, 0, list(self._objects[path].values())
                self._pages[f"{path} {version}"] = items
        end = start + limit if limit else len(items)
        meta: Document = {"resourceVersion": str(version)}
        if end < len(items):
            meta["continue"] = base64.b64encode(json.dumps([version, end]).encode()).decode()
            meta["remainingItemCount"] = len(items) - end
        head = json.dumps({"kind": "List", "apiVersion": "v1", "metadata": meta}).encode()[:-1]
        body = head + b',"items":[' + b",".join(items[start:end]) + b"]}\n"
        return web.Response(body=body, content_type="application/json")

    async def _watch(self, request: web.Request, path: str, query: dict[str, str]) -> web.StreamResponse:
        version = int(query["resourceVersion"])
        if version < self._compacted and not self.faults.gone_as_event:
            return _status(410, f"too old resource version: {version} ({self._compacted})")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        task = asyncio.current_task()
        assert task
        self._watches.add(task)
        try:
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(int(query.get("timeoutSeconds", 3600))):
                    await self._stream(response, path, version, bookmarks="allowWatchBookmarks" in query)
        except asyncio.CancelledError:
            task.uncancel()
            if request.transport:
                request.transport.abort()
        finally:
            self._watches.discard(task)
        return response

    async def _stream(self, response: web.StreamResponse, path: str, version: int, *, bookmarks: bool) -> None:
        if version < self._compacted:
            status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            await response.write(_event("ERROR", json.dumps(status).encode()))
            return
        while path not in self.absent:
            news = self._news
            with self._lock:
                new = [each for each in self._history if each.version > version]
                version = max(version, self._version)
            lines = b"".join(each.line for each in new if each.path == path)
            if self.faults.silent:
                await asyncio.sleep(3600)
            if lines:
                await response.write(lines)
            try:
                await asyncio.wait_for(news.wait(), self._bookmark_s)
            except TimeoutError:
                if bookmarks and version <= self._version:
                    await response.write(_event("BOOKMARK", _bookmark(version)))


def _name(document: Document) -> Name:
    metadata = document["metadata"]
    namespace = "" if document["kind"] in _CLUSTER_WIDE else metadata.get("namespace") or "default"
    return namespace, metadata["name"]


def _with_version(document: Document, namespace: str, version: int) -> bytes:
    metadata = document["metadata"] | {"resourceVersion": str(version), "creationTimestamp": None}
    if namespace:
        metadata["namespace"] = namespace
    return json.dumps(document | {"metadata": metadata}).encode()


def _event(verb: str, data: bytes) -> bytes:
    return b'{"type":"' + verb.encode() + b'","object":' + data + b"}\n"


def _bookmark(version: int) -> bytes:
    return json.dumps(
        {"kind": "Pod", "metadata": {"resourceVersion": str(version), "creationTimestamp": None}}
    ).encode()


def _status(code: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}
    return web.json_response(body, status=code, headers=headers)
