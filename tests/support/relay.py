"""A TCP relay under the test's control: the network between two processes, to be cut, made a black hole, and mended.

It runs on a thread and an event loop of its own, so that it works beside blocking tests and others' loops.
"""

import asyncio
import threading
from collections.abc import Callable

_DEADLINE_S = 10.0
_CHUNK = 64 << 10


class Relay:
    """Listens on `address` and passes on to `target` (both `host:port`). Usable from any thread."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._tasks: set[asyncio.Task[None]] = set()
        self._refusing = False
        self._there, self._back = asyncio.Event(), asyncio.Event()  # set: bytes pass in this direction
        self._there.set()
        self._back.set()
        self.accepted = 0
        self._left: int | None = None  # bytes that may still come back before the network is cut by itself
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay")
        self._thread.start()
        start = asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result(_DEADLINE_S)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        """Ends all connections, and new ones at once."""

        def act() -> None:
            self._refusing = True
            self._end_pipes()

        self._do(act)

    def cut_after(self, size: int) -> None:
        """Cuts the network when so many more bytes have come back from the target."""

        def act() -> None:
            self._left = size

        self._do(act)

    @property
    def is_cut(self) -> bool:
        return self._refusing

    def stall(self, *, there: bool = True, back: bool = True) -> None:
        """Nothing passes any more and nobody is told: connections stay open, new ones hang.

        `there` is the way to the target, `back` the way from it; half-open is one of the two.
        """

        def act() -> None:
            for flow, stalls in ((self._there, there), (self._back, back)):
                if stalls:
                    flow.clear()

        self._do(act)

    def resume(self) -> None:
        """Mends the network: what stalled goes on where it was, new connections are taken."""

        def act() -> None:
            self._refusing = False
            self._there.set()
            self._back.set()

        self._do(act)

    def renew(self) -> None:
        """Mends the network, but no connection of before lives on: what stalled never arrives."""
        self.cut()
        self.resume()

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            tasks = list(self._tasks)
            self._end_pipes()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(_DEADLINE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_DEADLINE_S)
        self._loop.close()

    def _do(self, act: Callable[[], None]) -> None:
        async def run() -> None:
            act()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(_DEADLINE_S)

    def _end_pipes(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _count(self, size: int) -> None:
        if self._left is not None and (left := self._left - size) <= 0:
            self._left, self._refusing = None, True
            self._end_pipes()
        elif self._left is not None:
            self._left = left

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._refusing:
            writer.transport.abort()
            return
        task = asyncio.ensure_future(self._relay(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        try:
            await self._there.wait()
            far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
            writers.append(far_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, far_writer, self._there, lambda size: None))
                group.create_task(_pump(far_reader, writer, self._back, self._count))
        except* OSError:
            pass  # one end is gone: so is the other
        finally:
            for each in writers:
                each.transport.abort()


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flow: asyncio.Event, count: Callable[[int], None]
) -> None:
    """Passes bytes on while the network flows. Raises ConnectionError at the end of either side."""
    while chunk := await reader.read(_CHUNK):
        await flow.wait()
        writer.write(chunk)
        await writer.drain()
        count(len(chunk))
    await flow.wait()  # an end is not seen through a black hole either
    raise ConnectionResetError
