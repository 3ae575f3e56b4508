"""Health and metrics of a process over plain HTTP: `/healthz`, `/readyz`, `/metrics`."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST


class HealthListenError(Exception):
    """The address cannot be listened on; str(error) names it."""


@asynccontextmanager
async def serve_health(
    listen: str, ready: Callable[[], tuple[bool, str]], registry: CollectorRegistry
) -> AsyncIterator[None]:
    """Serves on IP:PORT while the context lasts; `ready` says whether and why (not). Raises HealthListenError.

    `/healthz` answers 200 as long as the event loop turns; `/readyz` 200 or 503.
    """

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        is_ready, why = ready()
        return web.Response(text=why + "\n", status=200 if is_ready else 503)

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    for route, answer in (("/healthz", healthz), ("/readyz", readyz), ("/metrics", metrics)):
        application.router.add_get(route, answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    host, _, port = listen.rpartition(":")
    try:
        try:
            await web.TCPSite(runner, host.strip("[]"), int(port)).start()
        except (OSError, ValueError, OverflowError) as error:
            raise HealthListenError(f"cannot listen on {listen}: {_reason(error)}") from error
        yield
    finally:
        await runner.cleanup()


def _reason(error: Exception) -> str:
    match error:
        case OSError(errno=int(number)) if number > 0:  # asyncio's own words say the address again
            return os.strerror(number)
        case OSError():
            return error.strerror or str(error)
    return "it must be IP:PORT with a port of at most 65535"
