"""Numbers for backends in the maps: stable as long as anybody uses them, and over a restart."""

import socket
from collections.abc import Iterable, Mapping

from datapath.entries import Entry, IPAddress, backend_entry

PROTOCOLS: Mapping[str, int] = {
    "TCP": socket.IPPROTO_TCP,
    "UDP": socket.IPPROTO_UDP,
    "SCTP": socket.IPPROTO_SCTP,
}
_NAMES = {number: name for name, number in PROTOCOLS.items()}
ID_MAX = 0xFFFFFFFF
PORT_MAX = 0xFFFF
Endpoint = tuple[IPAddress, int, int]
"""Address, port, IPPROTO_* of a backend."""


class BackendIds:
    """Allocation by reference: the first use of a backend gives it a number, the last one gone frees it.

    A number that was freed is not given out again before all others were.
    """

    def __init__(self) -> None:
        self._ids: dict[Endpoint, int] = {}
        self._uses: dict[Endpoint, int] = {}
        self._restored: dict[Endpoint, int] = {}
        self._taken: set[int] = set()
        self._last = 0

    def restore(self, numbered: Mapping[int, Endpoint]) -> None:
        """These numbers stand in the maps already: a backend that is used again keeps its own."""
        self._restored = {endpoint: number for number, endpoint in numbered.items()}
        self._taken = set(numbered)
        self._last = max(numbered, default=0)

    def forget_restored(self) -> None:
        """Everything has been heard: what is not used now has no claim to its number any more."""
        self._taken = set(self._ids.values())
        self._restored.clear()

    def acquire(self, endpoint: Endpoint) -> tuple[int, Entry | None]:
        """Its number, and its entry if this is the first use."""
        number = self._ids.get(endpoint)
        if number is not None:
            self._uses[endpoint] += 1
            return number, None
        number = self._restored.pop(endpoint, None) or self._next()
        self._ids[endpoint], self._uses[endpoint] = number, 1
        return number, backend_entry(number, *endpoint)

    def release(self, endpoint: Endpoint) -> Entry | None:
        """The entry to remove if this was the last use."""
        self._uses[endpoint] -= 1
        if self._uses[endpoint]:
            return None
        del self._uses[endpoint]
        number = self._ids.pop(endpoint)
        self._taken.discard(number)
        return backend_entry(number, *endpoint)

    def number(self, endpoint: Endpoint) -> int:
        return self._ids[endpoint]

    def known(self, endpoint: Endpoint) -> bool:
        return endpoint in self._ids

    def _next(self) -> int:
        number = self._last
        while True:
            number = number % ID_MAX + 1
            if number not in self._taken:
                self._last = number
                self._taken.add(number)
                return number


def endpoint_text(endpoint: Endpoint) -> str:
    """`10.0.0.1:80/TCP`: the same on every node."""
    address, port, protocol = endpoint
    host = f"[{address}]" if address.version == 6 else str(address)
    return f"{host}:{port}/{_NAMES[protocol]}"


def usable(backends: Iterable[tuple[IPAddress, int, str]]) -> tuple[Endpoint, ...]:
    """Those that a map can hold: a known protocol, a port that is not 0."""
    return tuple((address, port, PROTOCOLS[name]) for address, port, name in backends if is_usable(port, name))


def is_usable(port: int, protocol: str) -> bool:
    return protocol in PROTOCOLS and 0 < port <= PORT_MAX
