"""Numbers for backends in the maps: stable as long as anybody uses them, and over a restart."""

import socket
from collections.abc import Iterable, Mapping
from typing import cast

from datapath.description import decode
from datapath.entries import Entry, IPAddress, backend_entry
from meshd.daemon.numbers import Numbers

PROTOCOLS: Mapping[str, int] = {
    "TCP": socket.IPPROTO_TCP,
    "UDP": socket.IPPROTO_UDP,
    "SCTP": socket.IPPROTO_SCTP,
}
_NAMES = {number: name for name, number in PROTOCOLS.items()}
PORT_MAX = 0xFFFF
Endpoint = tuple[IPAddress, int, int]
"""Address, port, IPPROTO_* of a backend."""


class BackendIds:
    """Allocation by reference: the first use of a backend gives it a number, the last one gone gives it back.

    `now` is monotonic, in seconds.
    """

    def __init__(self) -> None:
        self._ids: dict[Endpoint, int] = {}
        self._more: dict[Endpoint, int] = {}  # uses after the first one
        self._restored: dict[Endpoint, int] = {}
        self._numbers = Numbers()

    @property
    def mark(self) -> int:
        """After this number a restart goes on."""
        return self._numbers.mark

    def restore(self, numbered: Mapping[int, Endpoint], mark: int) -> None:
        """These numbers stand in the maps already: a backend that is used again keeps its own."""
        self._restored = {endpoint: number for number, endpoint in numbered.items()}
        self._numbers.restore(numbered, mark)

    def forget_restored(self, now: float) -> None:
        """Everything has been heard: what is not used now has no claim to its number any more."""
        self._numbers.keep_only(self._ids.values(), now)
        self._restored.clear()

    def acquire(self, endpoint: Endpoint, now: float) -> tuple[int, Entry | None]:
        """Its number, and its entry if this is the first use."""
        number = self._ids.get(endpoint)
        if number is not None:
            self._more[endpoint] = self._more.get(endpoint, 0) + 1
            return number, None
        number = self._restored.pop(endpoint, None) or self._numbers.take(now)
        self._ids[endpoint] = number
        return number, backend_entry(number, *endpoint)

    def release(self, endpoint: Endpoint, now: float) -> Entry | None:
        """The entry to remove if this was the last use."""
        if more := self._more.pop(endpoint, 0):
            if more > 1:
                self._more[endpoint] = more - 1
            return None
        number = self._ids.pop(endpoint)
        self._numbers.give_back(number, now)
        return backend_entry(number, *endpoint)

    def number(self, endpoint: Endpoint) -> int:
        return self._ids[endpoint]

    def known(self, endpoint: Endpoint) -> bool:
        return endpoint in self._ids


def endpoint_of(entry: Entry) -> Endpoint:
    """The backend in an entry of md_be4 or md_be6."""
    facts = decode(entry)
    return cast(Endpoint, (facts["address"], facts["port"], facts["protocol"]))


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
