"""Asks the kernel for routes and changes them, many at once. In the network namespace of the calling thread."""

import errno
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from typing import Self

from routing.rtnetlink import (
    DONE,
    ERROR,
    INTERRUPTED,
    NEWROUTE,
    KernelRoute,
    delete_request,
    dump_request,
    error_of,
    exceptions_request,
    messages,
    parse_route,
    replace_request,
    way_request,
)
from wire.records import IPAddress

_SOL_NETLINK, _STRICT = 270, 12  # NETLINK_GET_STRICT_CHK: let the kernel filter (Linux 4.20)
_BYTES = 1 << 16
_AT_ONCE = 32
"""Questions in one datagram: their answers wait in the socket's buffer, four kilobytes each."""
_NONE = (0, errno.ENOENT, errno.ENODEV)
"""No such table, no such device (any more): no routes."""
_TRIES = 3


class RouteSocket:
    """Use it in a `with`. Raises OSError."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._number = 0
        with suppress(OSError):  # older: it tells all, and what was not asked for is left out here
            self._socket.setsockopt(_SOL_NETLINK, _STRICT, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ways(
        self, addresses: Sequence[IPAddress], *, match: bool = False
    ) -> Iterator[tuple[IPAddress, KernelRoute | None]]:
        """The way to each as the node's own packets take it, or the route that it is by; None where there is none."""
        for first in range(0, len(addresses), _AT_ONCE):
            some = addresses[first : first + _AT_ONCE]
            waited = dict(enumerate(some, self._number + 1))
            self._number += len(some)
            self._socket.send(b"".join(way_request(address, number, match=match) for number, address in waited.items()))
            while waited:
                for kind, _, number, body in messages(self._socket.recv(_BYTES)):
                    if (address := waited.pop(number, None)) is not None:
                        yield address, parse_route(body) if kind == NEWROUTE else None

    def replace(self, routes: Sequence[KernelRoute], *, priority: int = 0) -> list[int]:
        """Whatever stands in the place of each goes; an errno for each, 0 for those that stand."""
        return list(self._change(routes, partial(replace_request, priority=priority)))

    def delete(self, routes: Sequence[KernelRoute]) -> list[int]:
        """An errno for each, 0 for those that went."""
        return list(self._change(routes, delete_request))

    def _change(self, routes: Sequence[KernelRoute], request: Callable[[KernelRoute, int], bytes]) -> Iterator[int]:
        for first in range(0, len(routes), _AT_ONCE):
            asked = dict(enumerate(routes[first : first + _AT_ONCE], self._number + 1))
            self._number += len(asked)
            self._socket.send(b"".join(request(route, number) for number, route in asked.items()))
            codes: dict[int, int] = {}
            while len(codes) < len(asked):
                for kind, _, number, body in messages(self._socket.recv(_BYTES)):
                    if kind == ERROR and number in asked:
                        codes[number] = error_of(body)
            yield from map(codes.__getitem__, asked)

    def dump(self, version: int, *, table: int = 0, protocol: int = 0, device: int = 0) -> list[KernelRoute]:
        """All routes of these (0: of any)."""
        found = self._dump(partial(dump_request, version, table=table, protocol=protocol, device=device))
        return [
            route
            for route in found
            if table in (0, route.table) and protocol in (0, route.protocol) and (not device or device in route.devices)
        ]

    def path_mtus(self, version: int) -> dict[IPAddress, int]:
        """The largest packet for an address, of those that a router told the kernel of. It forgets in minutes."""
        found = self._dump(partial(exceptions_request, version))
        return {ip_address(route.destination): route.mtu for route in found if route.mtu and _is_single(route)}

    def _dump(self, request: Callable[[int], bytes]) -> list[KernelRoute]:
        """`request` makes the question of its number."""
        for _ in range(_TRIES):
            found, is_whole = self._dump_once(request)
            if is_whole:
                break
        return found

    def _dump_once(self, request: Callable[[int], bytes]) -> tuple[list[KernelRoute], bool]:
        """And whether nothing changed meanwhile."""
        self._number += 1
        self._socket.send(request(self._number))
        found: list[KernelRoute] = []
        is_whole = True
        while True:
            for kind, flags, number, body in messages(self._socket.recv(_BYTES)):
                if number != self._number:
                    continue
                is_whole = is_whole and not flags & INTERRUPTED
                if kind in (DONE, ERROR):
                    if (code := error_of(body)) not in _NONE:
                        raise OSError(code, os.strerror(code))
                    return found, is_whole
                if kind == NEWROUTE and (route := parse_route(body)) is not None:
                    found.append(route)


def _is_single(route: KernelRoute) -> bool:
    return bool(route.destination) and route.bits == 8 * len(route.destination)
