"""One kind of object, as the API server has it: list, watch, resume, list again and sweep."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, replace

from msgspec import Raw
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from meshd.agent.decoding import BadObject
from meshd.agent.objects import KubernetesObject, Ref
from meshd.agent.sources.answers import BadAnswer, Resource, decode_event, decode_head, decode_item, decode_status
from meshd.agent.sources.apiserver import ApiServer, ApiUnavailable, HistoryGone, NotServed
from meshd.agent.state import Changes

logger = logging.getLogger(__name__)

#: After so many watches in a row that told nothing, not even a bookmark, the history may be another one: list again.
FRUITLESS = 3
#: A watch that ends sooner than this without a word is a failure, s.
SOON_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Objects in a page; durations in s. `confirm_s`: a kind that is missing is looked for a second time after this,
    because a server that has just begun does not know all kinds yet; and then every `absent_s`.
    """

    page: int = 500
    watch_s: tuple[int, int] = (300, 600)
    silence_s: float = 150.0
    confirm_s: float = 2.0
    absent_s: float = 30.0
    max_retry_s: float = 30.0


class Reflector:
    """`deliver` gets what changes; the first one with `synced` completes what was there at the start.

    `bad`: objects that cannot be used, and why. What was known of one before stays known.
    """

    def __init__(
        self, server: ApiServer, resource: Resource, deliver: Callable[[Changes], Awaitable[None]], timing: Timing
    ) -> None:
        self.resource = resource
        self.problem = ""
        self.bad: dict[Ref, str] = {}
        self._nameless = Ref(resource.kind, "", "?")
        self.lists = 0
        self.waiting_s = self.decoding_s = 0.0
        self._server = server
        self._deliver = deliver
        self._timing = timing
        self._known: set[Ref] = set()
        self._version = ""
        self._fruitless = self._misses = 0

    async def run(self) -> None:
        """For ever."""
        while True:
            retrying = AsyncRetrying(
                wait=wait_random_exponential(multiplier=0.1, max=self._timing.max_retry_s),
                retry=retry_if_exception_type(ApiUnavailable),
            )
            async for attempt in retrying:
                with attempt:
                    await self._turn()

    async def _turn(self) -> None:
        """A list, if one is due, and a watch. Raises ApiUnavailable."""
        try:
            if not self._version or self._fruitless >= FRUITLESS:
                await self._list()
            await self._watch()
        except HistoryGone as gone:
            self._version = ""
            logger.info("listing again", extra={"kind": self.resource.kind, "reason": gone})
            raise ApiUnavailable(str(gone)) from gone
        except NotServed as error:
            if not self.resource.optional:
                self._say(str(error))
                raise ApiUnavailable(str(error)) from error
            await self._miss()
        except ApiUnavailable as error:
            self._say(str(error))
            await asyncio.sleep(error.after_s)
            raise

    async def _list(self) -> None:
        """Everything, page by page, then the deletes of what was not in it."""
        seen: set[Ref] = set()
        limit, token = self._timing.page, ""
        while True:
            began = time.perf_counter()
            try:
                page = await self._server.list_page(self.resource.path, limit=limit, token=token)
            except HistoryGone:
                if not token:
                    raise
                limit, token = 0, ""  # it took longer than the server remembers: all at once
                continue
            self.waiting_s += (arrived := time.perf_counter()) - began
            changes = Changes(self._read(page.items or (), seen))
            self.decoding_s += time.perf_counter() - arrived
            await self._tell(changes)
            if not (token := page.metadata.token):
                break
        gone = set() if self._nameless in seen else self._known - seen  # it may be any of them
        self._known -= gone
        self.bad = {ref: reason for ref, reason in self.bad.items() if ref in seen}
        self._version = page.metadata.resource_version
        self._fruitless = self._misses = 0
        self.lists += 1
        await self._tell(Changes(deletes=gone, synced=True))

    async def _tell(self, changes: Changes) -> None:
        """`whole`: of every object that there is something is known."""
        await self._deliver(replace(changes, whole=self.bad.keys() <= self._known))

    def _read(self, items: Iterable[Raw], seen: set[Ref]) -> dict[Ref, KubernetesObject]:
        upserts: dict[Ref, KubernetesObject] = {}
        for item in items:
            ref, known = self._decode(item)
            seen.add(ref)
            if known is not None:
                upserts[ref] = known
        self._known |= upserts.keys()
        return upserts

    def _decode(self, item: Raw) -> tuple[Ref, KubernetesObject | None]:
        """Without an object if it cannot be used: what was known of it before stays."""
        try:
            ref, known = decode_item(self.resource.kind, item)
        except BadObject as error:
            return self._spoil(item, str(error)), None
        self.bad.pop(ref, None)
        return ref, known

    def _spoil(self, item: Raw, reason: str) -> Ref:
        try:
            ref, _ = decode_head(self.resource.kind, item)
        except BadAnswer as error:
            ref, reason = self._nameless, str(error)
        if self.bad.get(ref) != reason:
            logger.error("an object cannot be used", extra={"object": ref, "reason": reason})
            self.bad[ref] = reason
        return ref

    async def _watch(self) -> None:
        began, heard = time.monotonic(), False
        timeout_s = random.randint(*self._timing.watch_s)  # noqa: S311 - so that not all end at once
        self._fruitless += 1
        stream = self._server.watch(self.resource.path, version=self._version, timeout_s=timeout_s)
        async with aclosing(stream):
            async for lines in stream:
                if not lines:
                    self._say("")
                    continue
                try:
                    changes, version = self._follow(lines)
                except BadAnswer as error:
                    self._version = ""  # something happened, and nobody knows what
                    raise ApiUnavailable(f"{self.resource.path}: {error}") from error
                if changes.upserts or changes.deletes:
                    await self._tell(changes)
                self._version, heard, self._fruitless = version, True, 0
        if not heard and time.monotonic() - began < SOON_S:
            raise ApiUnavailable(f"{self.resource.path}: the watch ended at once")

    def _follow(self, lines: Iterable[bytes]) -> tuple[Changes, str]:
        """What these events come to, and the version after them. Raises HistoryGone, ApiUnavailable, BadAnswer."""
        upserts: dict[Ref, KubernetesObject] = {}
        deletes: set[Ref] = set()
        version = self._version
        for line in lines:
            event = decode_event(line)
            if event.type == "ERROR":
                self._fail(event.object)
            ref, at = decode_head(self.resource.kind, event.object)
            version = at or version
            if event.type == "DELETED":
                upserts.pop(ref, None)
                deletes.add(ref)
                self._known.discard(ref)
                self.bad.pop(ref, None)
            elif event.type != "BOOKMARK" and (known := self._decode(event.object)[1]) is not None:
                deletes.discard(ref)
                upserts[ref] = known
                self._known.add(ref)
        return Changes(upserts, deletes), version

    def _fail(self, data: Raw) -> None:
        status = decode_status(data)
        reason = f"{self.resource.path}: {status.code} {status.message}"
        if status.code == 410:
            raise HistoryGone(reason)
        raise ApiUnavailable(reason)

    async def _miss(self) -> None:
        """The server has no such kind. It is believed the second time; then its objects are gone with it."""
        self._misses += 1
        self._version = ""
        self._say("")
        if self._misses == 1:
            await asyncio.sleep(self._timing.confirm_s)
            return
        if self._misses == 2:
            logger.info("the API server has no such kind: none is published", extra={"kind": self.resource.kind})
            gone, self._known = self._known, set()
            self.bad.clear()
            await self._tell(Changes(deletes=gone, synced=True))
        await asyncio.sleep(self._timing.absent_s)

    def _say(self, problem: str) -> None:
        if problem and not self.problem:
            logger.warning("the API server is not heard: retrying", extra={"reason": problem})
        elif self.problem and not problem:
            logger.info("the API server is heard again", extra={"kind": self.resource.kind})
        self.problem = problem
