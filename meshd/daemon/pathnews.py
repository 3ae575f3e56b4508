"""What routers say of the ways to nodes: ICMP "fragmentation needed", ICMPv6 "packet too big". The kernel believes them
for some minutes, and says what it believes when it is asked for it. Here is only heard that one of them spoke.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import NoReturn

from routing.routesocket import RouteSocket
from wire.records import IPAddress

SETTLE_S = 0.05  # such news come in crowds, and to us first
AGAIN_S = 15.0  # what was told before may be forgotten
QUEUE_BYTES, AT_ONCE = 4096, 64  # what waits to be read, and is: of many one is enough
_PROTOCOLS = {4: (socket.AF_INET, socket.IPPROTO_ICMP), 6: (socket.AF_INET6, socket.IPPROTO_ICMPV6)}
_TOO_BIG = {4: b"\x03\x04", 6: b"\x02\x00"}  # type and code
# raw(7): ICMP_FILTER; RFC 3542: ICMP6_FILTER. A set bit is a type that is kept away.
_ONLY_TOO_BIG = {
    4: (255, 1, struct.pack("=I", 0xFFFFFFFF ^ 1 << 3)),
    6: (socket.IPPROTO_ICMPV6, 1, struct.pack("=8I", 0xFFFFFFFF ^ 1 << 2, *[0xFFFFFFFF] * 7)),
}


def open_news(version: int) -> socket.socket:
    """A socket that hears of packets that were too big. Raises OSError if there is no right to have one."""
    family, protocol = _PROTOCOLS[version]
    made = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    made.setsockopt(*_ONLY_TOO_BIG[version])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, QUEUE_BYTES)
    return made


def is_too_big(version: int, packet: bytes) -> bool:
    """`packet` as the socket gives it: of IPv4 with its header. IPv4's filter lets all that is unreachable pass."""
    start = (packet[0] & 0x0F) * 4 if version == 4 and packet else 0
    return packet[start : start + 2] == _TOO_BIG[version]


class PathNews:
    """Of routers below the underlay's IP `version`."""

    def __init__(self, version: int, executor: Executor) -> None:
        self._version, self._executor = version, executor
        self._heard = asyncio.Event()

    async def run(self, told: Callable[[Mapping[IPAddress, int]], None]) -> NoReturn:
        """Calls `told` with all that the kernel believes, by address, whenever that may be new; the addresses need not
        be nodes'. Raises OSError if there is no right to hear, or the kernel does not answer.
        """
        loop = asyncio.get_running_loop()
        with open_news(self._version) as news:
            loop.add_reader(news, self._drain, news)
            try:
                while True:
                    self._heard.clear()
                    told(await loop.run_in_executor(self._executor, self._ask))
                    await self._wait()
                    await asyncio.sleep(SETTLE_S)
            finally:
                loop.remove_reader(news)

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(AGAIN_S):
                await self._heard.wait()
        except TimeoutError:
            return

    def _ask(self) -> Mapping[IPAddress, int]:
        with RouteSocket() as routes:
            return routes.path_mtus(self._version)

    def _drain(self, news: socket.socket) -> None:
        try:
            for _ in range(AT_ONCE):
                if is_too_big(self._version, news.recv(64)):
                    self._heard.set()
        except OSError:  # nothing more, or an error that the socket was told
            return
