"""Probes of the way through the tunnel to a few nodes of every remote cluster: do they answer, how fast, how many not.

A probe is a UDP packet to the tunnel port of the other node (datapath/probe.py); its BPF program sends it back through
the tunnel, and it is read here from the tunnel device. The other node's daemon has no part in it.
"""

import asyncio
import logging
import random
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import count
from statistics import median
from typing import NoReturn

from datapath.probe import ETHER_TYPE, decode_reply, encode_request
from wire.records import Node

logger = logging.getLogger(__name__)

NODES_MAX = 3  # of a cluster
INTERVAL_S = 5.0
URGENT_S = 1.0  # while the control link is lost
TIMEOUT_S = 1.0
WINDOW = 20
SILENT = 3  # so many in a row without an answer: the node does not answer
TICK_S = 0.1
TUNNEL_ANNOTATION = "meshd.io/tunnel"


@dataclass(slots=True)
class Target:
    """One node: where its tunnel ends, what is under way, and the last results (round trip in seconds; None: lost)."""

    address: str
    port: int
    due: float
    sent: dict[int, float] = field(default_factory=dict)
    results: deque[float | None] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def answers(self) -> bool | None:
        last = list(self.results)[-SILENT:]
        if any(result is not None for result in last):
            return True
        return False if len(last) == SILENT else None

    def is_doubtful(self) -> bool:
        """The last probe was lost, and it takes more of them to know."""
        return bool(self.results) and self.results[-1] is None and self.answers() is not False

    def expire(self, now: float) -> None:
        for number in [number for number, at in self.sent.items() if now - at > TIMEOUT_S]:
            del self.sent[number]
            self.results.append(None)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Of a cluster: `answers` None: not known. `rtt_s` median of the answers, `loss` 0 to 1, of the last probes."""

    nodes: int
    answers: bool | None
    rtt_s: float | None
    loss: float | None


NO_EVIDENCE = Evidence(0, None, None, None)


class Prober:
    """`aim` at clusters, `run` as a task. `is_urgent` says of which clusters more should be known."""

    def __init__(self, device: str, *, node: str, is_urgent: Callable[[str], bool]) -> None:
        self._device, self._node, self._is_urgent = device, node, is_urgent
        self._cookie = secrets.randbits(64)
        self._numbers = count(1)
        self._targets: dict[str, dict[str, Target]] = {}
        self._under_way: dict[int, Target] = {}

    def aim(self, cluster: str, nodes: Iterable[Node]) -> None:
        """These are the nodes of the cluster now; a few of them are probed, other ones from other nodes of ours."""
        reachable = {node.name: place for node in nodes if (place := _place(node))}
        chosen = sorted(reachable, key=self._preference)[:NODES_MAX]
        before = self._targets.get(cluster, {})
        after: dict[str, Target] = {}
        for name in chosen:
            known = before.get(name)
            if known and (known.address, known.port) == reachable[name]:
                after[name] = known
            else:
                due = time.monotonic() + random.uniform(0, URGENT_S)  # noqa: S311 — spreads load, hides nothing
                after[name] = Target(*reachable[name], due)
        self._targets[cluster] = after

    def forget(self, cluster: str) -> None:
        self._targets.pop(cluster, None)

    def evidence(self, cluster: str) -> Evidence:
        targets = self._targets.get(cluster)
        if not targets:
            return NO_EVIDENCE
        answers = {target.answers() for target in targets.values()}
        results = [result for target in targets.values() for result in target.results]
        times = [result for result in results if result is not None]
        return Evidence(
            nodes=len(targets),
            answers=True if True in answers else None if None in answers else False,
            rtt_s=median(times) if times else None,
            loss=1 - len(times) / len(results) if results else None,
        )

    def nodes(self, cluster: str) -> Mapping[str, Target]:
        return self._targets.get(cluster, {})

    async def run(self) -> NoReturn:
        """Raises OSError if there is no tunnel device or no right to read from it."""
        listener = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        loop = asyncio.get_running_loop()
        with listener, sender:
            listener.bind((self._device, ETHER_TYPE))
            loop.add_reader(listener, self._read, listener)
            try:
                while True:
                    self._tick(sender, time.monotonic())
                    await asyncio.sleep(TICK_S)
            finally:
                loop.remove_reader(listener)

    def _tick(self, sender: socket.socket, now: float) -> None:
        for number in [number for number, target in self._under_way.items() if number not in target.sent]:
            del self._under_way[number]
        for cluster, targets in self._targets.items():
            urgent_s = 0.0
            for target in targets.values():
                if target.sent:
                    target.expire(now)
                urgent_s = urgent_s or (URGENT_S if self._is_urgent(cluster) else INTERVAL_S)
                interval_s = URGENT_S if target.is_doubtful() else urgent_s
                if now >= target.due - INTERVAL_S + interval_s:
                    target.due = now + INTERVAL_S
                    self._send(sender, target)

    def _send(self, sender: socket.socket, target: Target) -> None:
        number = next(self._numbers) & 0xFFFFFFFF
        target.sent[number] = time.monotonic()
        self._under_way[number] = target
        try:
            sender.sendto(encode_request(number, self._cookie), (target.address, target.port))
        except OSError as error:  # no route, or no room: it is lost like any other
            logger.debug("probe not sent", extra={"address": target.address, "reason": error.strerror})

    def _read(self, listener: socket.socket) -> None:
        while True:
            try:
                payload = listener.recv(256)
            except OSError:  # nothing more, or the device went down
                return
            number = decode_reply(payload, self._cookie)
            target = self._under_way.pop(number, None) if number is not None else None
            if target is not None and number is not None and (at := target.sent.pop(number, None)) is not None:
                target.results.append(time.monotonic() - at)

    def _preference(self, name: str) -> bytes:
        return blake2b(f"{self._node}/{name}".encode(), digest_size=8).digest()


def _place(node: Node) -> tuple[str, int] | None:
    """Where its tunnel ends, if it is one of ours: others do not answer our probes."""
    kind, _, port = (node.annotations or {}).get(TUNNEL_ANNOTATION, "").partition(":")
    address = node.node_ip(4)
    if kind != "vxlan" or address is None or not port.isdigit() or not 0 < int(port) < 65536:
        return None
    return str(address), int(port)
