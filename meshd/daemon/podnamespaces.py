"""Which addresses a network namespace of this node has, by the number that the kernel's programs know it by.

What a socket hook refuses has no source address yet: the namespace says which pod asked. Namespaces are found where a
process runs in them (the host's /proc must be seen: `hostPID` in a container) or where they are bound below /run/netns.
"""

import asyncio
import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from datapath.entries import IPAddress
from meshd.daemon.underlay import netns_cookie

AGAIN_S = 2.0
"""How long one that was not found is not looked for again."""
_CLONE_NEWNET = 0x40000000
_PLACES = (("/run/netns", "*"), ("/proc", "[0-9]*/ns/net"))
_libc = ctypes.CDLL(None, use_errno=True)
Found = Mapping[int, frozenset[IPAddress]]


class PodNamespaces:
    """What was found last. `learn` inside the loop: it looks again, in a thread, if one of these is not known."""

    def __init__(self, find: Callable[[], Found] | None = None) -> None:
        self._find, self._known, self._asked = find or find_namespaces, dict[int, frozenset[IPAddress]](), 0.0

    async def learn(self, cookies: Iterable[int]) -> None:
        now = time.monotonic()
        if all(cookie in self._known for cookie in cookies) or now - self._asked < AGAIN_S:
            return
        self._asked = now
        self._known = dict(await asyncio.to_thread(self._find))

    def addresses(self, cookie: int) -> frozenset[IPAddress]:
        """Empty if it is not known."""
        return self._known.get(cookie, frozenset())


def find_namespaces() -> Found:
    """Every network namespace that can be seen, but for those that go meanwhile."""
    found: dict[int, frozenset[IPAddress]] = {}
    paths = list(_paths())

    def enter() -> None:  # in a thread that ends with it: none comes back from another namespace
        for path in paths:
            with suppress(OSError):
                _set_namespace(path)
                found[netns_cookie()] = frozenset(_own_addresses())

    thread = threading.Thread(target=enter, name="namespaces")
    thread.start()
    thread.join()
    return found


def _paths() -> Iterator[Path]:
    """One path to each."""
    seen = set()
    for folder, pattern in _PLACES:
        for path in Path(folder).glob(pattern):
            with suppress(OSError):
                status = path.stat()
                if (key := (status.st_dev, status.st_ino)) not in seen:
                    seen.add(key)
                    yield path


def _set_namespace(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(handle, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns", str(path))
    finally:
        os.close(handle)


def _own_addresses() -> Iterator[IPAddress]:
    """Those of the calling thread's network namespace: proc(5)."""
    address = ""
    for line in Path("/proc/thread-self/net/fib_trie").read_text().splitlines():
        if "|--" in line:
            address = line.split()[-1]
        elif "/32 host LOCAL" in line:
            yield IPv4Address(address)
    for line in Path("/proc/thread-self/net/if_inet6").read_text().splitlines():
        yield IPv6Address(bytes.fromhex(line.split()[0]))
