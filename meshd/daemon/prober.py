"""Probes of the way to a few nodes of every remote cluster: do they answer, how fast, how many not.

Where packets go through the tunnel, a probe is a UDP packet to the tunnel port of the other node (datapath/probe.py);
its BPF program sends it back through the tunnel, and it is read here from the tunnel device. Where they go as they are,
it is an echo request to the node (echo.py). The other node's daemon has no part in either. Larger ones, which must not
be fragmented, find the path MTU (pathmtu.py).
"""

import asyncio
import logging
import random
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from itertools import count
from statistics import median
from typing import NoReturn

from datapath.probe import ETHER_TYPE, decode_reply, encode_request
from meshd.daemon.echo import decode_echo, encode_echo, open_echo
from meshd.daemon.pathmtu import PathMtu
from routing.tunnel import ANNOTATION, BadTunnel, Tunnel, tunnel_of
from wire.records import Node

logger = logging.getLogger(__name__)

NODES_MAX = 3  # of a cluster
INTERVAL_S = 5.0
URGENT_S = 1.0  # while the control link is lost
TIMEOUT_S = 1.0
WINDOW = 20
SILENT = 3  # so many in a row without an answer: the node does not answer
TICK_S = 0.1
UDP_BYTES = 8
PATIENCE_S = 0.2  # at least, for a probe of a size


@dataclass(frozen=True, slots=True)
class Family:
    """What differs between underlays: bytes of the IP header, and the options that forbid fragments whatever the
    kernel has heard of the path (ip(7), ipv6(7): …_MTU_DISCOVER with …_PMTUDISC_PROBE, IPV6_DONTFRAG).
    """

    domain: socket.AddressFamily
    header: int
    whole: tuple[tuple[int, int, int], ...]


FAMILIES = {
    4: Family(socket.AF_INET, 20, ((socket.IPPROTO_IP, 10, 3),)),
    6: Family(socket.AF_INET6, 40, ((socket.IPPROTO_IPV6, 23, 3), (socket.IPPROTO_IPV6, 62, 1))),
}


@dataclass(frozen=True, slots=True)
class Sized:
    """A probe of the path MTU that is under way."""

    number: int
    size: int
    at: float


@dataclass(frozen=True, slots=True)
class Sockets:
    """For probes through the tunnel, for those of a size, and for echo requests."""

    sender: socket.socket
    whole: socket.socket
    echo: socket.socket


@dataclass(slots=True)
class Target:
    """One node: its address, where its tunnel ends (None: packets go there without), what is under way, and the last
    results (round trip in seconds; None: lost).
    """

    address: str
    tunnel: Tunnel | None
    due: float
    sent: dict[int, float] = field(default_factory=dict)
    results: deque[float | None] = field(default_factory=lambda: deque(maxlen=WINDOW))
    path: PathMtu = field(default_factory=lambda: PathMtu(0))
    sized: Sized | None = None

    def answers(self) -> bool | None:
        last = list(self.results)[-SILENT:]
        if any(result is not None for result in last):
            return True
        return False if len(last) == SILENT else None

    def is_doubtful(self) -> bool:
        """The last probe was lost, and it takes more of them to know."""
        return bool(self.results) and self.results[-1] is None and self.answers() is not False

    def patience_s(self) -> float:
        """How long a probe of a size is waited for."""
        slowest = max((result for result in self.results if result is not None), default=TIMEOUT_S)
        return min(TIMEOUT_S, max(PATIENCE_S, 4 * slowest))

    def expire(self, now: float) -> None:
        for number in [number for number, at in self.sent.items() if now - at > TIMEOUT_S]:
            del self.sent[number]
            self.results.append(None)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Of a cluster: `answers` None: not known. `rtt_s` median of the answers, `loss` 0 to 1, of the last probes; the
    smallest `path_mtu` of its nodes that is known.
    """

    nodes: int
    answers: bool | None
    rtt_s: float | None
    loss: float | None
    path_mtu: int | None = None


NO_EVIDENCE = Evidence(0, None, None, None)


class Prober:
    """`aim` at clusters, `run` as a task. `is_urgent` says of which clusters more should be known, `mtu` what the
    underlay carries (0: not known yet).
    """

    def __init__(
        self,
        *,
        node: str,
        is_urgent: Callable[[str], bool],
        underlay: int = 4,
        mtu: Callable[[], int] = lambda: 0,
    ) -> None:
        self._node, self._is_urgent, self._mtu = node, is_urgent, mtu
        self._version, self._family = underlay, FAMILIES[underlay]
        self._cookie = secrets.randbits(64)
        self._numbers = count(1)
        self._targets: dict[str, dict[str, Target]] = {}
        self._under_way: dict[int, Target] = {}

    def aim(self, cluster: str, nodes: Iterable[Node], direct: Set[str] = frozenset()) -> None:
        """These are the nodes of the cluster now, and the names of those that packets reach without a tunnel; a few of
        them are probed, other ones from other nodes of ours.
        """
        places = ((node.name, _place(node, self._version, is_direct=node.name in direct)) for node in nodes)
        reachable = {name: place for name, place in places if place}
        chosen = sorted(reachable, key=self._preference)[:NODES_MAX]
        before = self._targets.get(cluster, {})
        after: dict[str, Target] = {}
        for name in chosen:
            known = before.get(name)
            if known and (known.address, known.tunnel) == reachable[name]:
                after[name] = known
            else:
                due = time.monotonic() + random.uniform(0, URGENT_S)  # noqa: S311 — spreads load, hides nothing
                after[name] = Target(*reachable[name], due)
        self._targets[cluster] = after

    def forget(self, cluster: str) -> None:
        self._targets.pop(cluster, None)

    def measure(self, clusters: Iterable[str]) -> None:
        """The ways to the nodes of these may carry something else by now."""
        for target in (target for cluster in clusters for target in self._targets.get(cluster, {}).values()):
            target.path.again()

    def answers(self, cluster: str) -> bool | None:
        """Whether one of its nodes answers; None: not known."""
        found = {target.answers() for target in self._targets.get(cluster, {}).values()}
        return True if True in found else None if None in found or not found else False

    def evidence(self, cluster: str) -> Evidence:
        targets = self._targets.get(cluster)
        if not targets:
            return NO_EVIDENCE
        results = [result for target in targets.values() for result in target.results]
        times = [result for result in results if result is not None]
        return Evidence(
            nodes=len(targets),
            answers=self.answers(cluster),
            rtt_s=median(times) if times else None,
            loss=1 - len(times) / len(results) if results else None,
            path_mtu=min((t.path.found for t in targets.values() if t.path.found is not None), default=None),
        )

    def nodes(self, cluster: str) -> Mapping[str, Target]:
        return self._targets.get(cluster, {})

    async def run(self) -> NoReturn:
        """Raises OSError if there is no right to read frames."""
        # Of every device: an answer comes by that of the other node's port. The cookie tells ours from others'.
        listener = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(ETHER_TYPE))
        sender = socket.socket(self._family.domain, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        whole = socket.socket(self._family.domain, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        echo = open_echo(self._version)
        loop = asyncio.get_running_loop()
        with listener, sender, whole, echo:
            for option in self._family.whole:
                whole.setsockopt(*option)
                echo.setsockopt(*option)
            loop.add_reader(listener, self._read, listener, decode_reply)
            loop.add_reader(echo, self._read, echo, partial(decode_echo, self._version))
            try:
                while True:
                    self._tick(Sockets(sender, whole, echo), time.monotonic())
                    await asyncio.sleep(TICK_S)
            finally:
                loop.remove_reader(listener)
                loop.remove_reader(echo)

    def _tick(self, sockets: Sockets, now: float) -> None:
        self._forget_old()
        for cluster, targets in self._targets.items():
            urgent_s = 0.0
            for target in targets.values():
                if target.sent:
                    target.expire(now)
                urgent_s = urgent_s or (URGENT_S if self._is_urgent(cluster) else INTERVAL_S)
                interval_s = URGENT_S if target.is_doubtful() else urgent_s
                if now >= target.due - INTERVAL_S + interval_s:
                    target.due = now + INTERVAL_S
                    self._send(sockets, target)
                self._measure(sockets, target, now)

    def _forget_old(self) -> None:
        for number, target in list(self._under_way.items()):
            if number not in target.sent and not (target.sized and target.sized.number == number):
                del self._under_way[number]

    def _measure(self, sockets: Sockets, target: Target, now: float) -> None:
        """One step of the search for the path MTU. Of a node that does not answer small probes nothing can be said."""
        if (sized := target.sized) is not None:
            if now - sized.at < target.patience_s():
                return
            target.sized = None
            if target.answers() and not target.is_doubtful():
                target.path.lost(sized.size, now)
        if (mtu := self._mtu()) and target.answers() and not target.is_doubtful():
            target.path.follow(mtu)
            if size := target.path.next_size(now):
                self._send_sized(sockets, target, Sized(next(self._numbers) & 0xFFFFFFFF, size, now))

    def _send_sized(self, sockets: Sockets, target: Target, sized: Sized) -> None:
        target.sized = sized
        self._under_way[sized.number] = target
        self._request(sockets, target, sized.number, sized.size - self._family.header)

    def _send(self, sockets: Sockets, target: Target) -> None:
        number = next(self._numbers) & 0xFFFFFFFF
        target.sent[number] = time.monotonic()
        self._under_way[number] = target
        self._request(sockets, target, number)

    def _request(self, sockets: Sockets, target: Target, number: int, size: int = 0) -> None:
        """`size` without the IP header; 0: as short as can be, and it may be fragmented."""
        try:
            if target.tunnel is None:
                sockets.echo.sendto(encode_echo(self._version, number, self._cookie, size=size), (target.address, 0))
                return
            kind, sender = target.tunnel.encapsulation, sockets.whole if size else sockets.sender
            request = encode_request(number, self._cookie, kind=kind, size=size - UDP_BYTES if size else 0)
            sender.sendto(request, (target.address, target.tunnel.port))
        except OSError as error:  # no route, no room, or larger than the device's: it is lost like any other
            logger.debug("probe not sent", extra={"address": target.address, "reason": error.strerror})

    def _read(self, listener: socket.socket, decode: Callable[[bytes, int], int | None]) -> None:
        while True:
            try:
                payload = listener.recv(256)
            except OSError:  # nothing more, or the device went down
                return
            number = decode(payload, self._cookie)
            target = self._under_way.pop(number, None) if number is not None else None
            if target is None or number is None:
                continue
            if (at := target.sent.pop(number, None)) is not None:
                target.results.append(time.monotonic() - at)
            elif target.sized is not None and target.sized.number == number:
                target.path.passed(target.sized.size, time.monotonic())
                target.sized = None

    def _preference(self, name: str) -> bytes:
        return blake2b(f"{self._node}/{name}".encode(), digest_size=8).digest()


def _place(node: Node, version: int, *, is_direct: bool) -> tuple[str, Tunnel | None] | None:
    """Where a probe goes: to the node itself, or where its tunnel ends, if it is one of ours: others do not answer."""
    address = node.node_ip(version)
    if address is not None and is_direct:
        return str(address), None
    if address is None or ANNOTATION not in (node.annotations or {}):
        return None
    try:
        return str(address), tunnel_of(node)
    except BadTunnel:
        return None
