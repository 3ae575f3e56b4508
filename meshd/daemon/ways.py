"""Keeps the mesh told of what the kernel says of the ways to other nodes: asks when the plan needs to know more, and
when the node's devices, addresses, routes or rules move. Routes of ours that went with their device, or by somebody's
hand, are written again.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from concurrent.futures import Executor
from typing import NoReturn

from datapath.entries import config_entry
from datapath.layout import Cfg
from meshd.daemon.datapath import Datapath
from meshd.daemon.mesh import Mesh
from meshd.daemon.netevents import Concern, is_own, takes_routes
from meshd.daemon.underlay import open_events
from meshd.daemon.wantedroutes import EXPORTS, ROUTES
from meshd.reconcile.loop import Reconciler
from meshd.reconcile.target import TargetError
from routing.plan import End, Surroundings
from routing.routes import PROTOCOL

logger = logging.getLogger(__name__)

SETTLE_S = 0.1  # events come in crowds
EVENTS_BYTES = 1 << 16


class Ways:
    """Run it as a task; `look` after each change of the plan."""

    def __init__(
        self,
        datapath: Datapath,
        mesh: Mesh,
        routes: Reconciler,
        executor: Executor,
        wake: Callable[[], None],
        *,
        host_routes: bool,
    ) -> None:
        self._survey, self._mesh, self._routes, self._target = datapath.survey, mesh, routes, datapath.routes
        self._executor, self._wake, self._netns = executor, wake, datapath.netns
        self._asked: object = None
        self._problems: dict[str, str] = {}
        self._due = asyncio.Event()
        self._due.set()
        self._devices: frozenset[int] = frozenset()
        self._tidied = False
        self._shaken = False
        """Routes of ours may be gone."""
        self._concern = Concern(everything=True)
        self._standing: dict[str, dict[bytes, bytes]] = {}
        self._host_routes = host_routes
        self._balanced = host_routes and _was_balanced(datapath)
        """Sockets of the node itself are sent to remote backends too: its routes stand."""

    @property
    def settled(self) -> bool:
        """The kernel was asked all that the plan needs."""
        return self._asked == self._mesh.nodes.needs()

    @property
    def problems(self) -> dict[str, str]:
        """What the kernel could not give, by tunnel or device."""
        return self._problems

    def underlay_mtu(self) -> int:
        """As the kernel said last; 0: not known."""
        end = self._mesh.nodes.surroundings.ends.get(self._survey.own)
        return end.mtu if isinstance(end, End) else 0

    def look(self) -> None:
        """The plan may need to know more, or the node's routes may stand now."""
        if not self.settled or (self._mesh.restored and not self._tidied):
            self._due.set()
        if self._host_routes and not self._balanced and self._routes_stand():
            self._balanced = True
            self._configure(self._mesh.nodes.surroundings)
            self._wake()

    def repair(self) -> None:
        """Between rounds: what is not in the kernel any more is written again."""
        standing, self._standing = self._standing, {}
        delta = self._routes.delta
        for map, routes in standing.items():
            delta.doubt(map, [key for key, way in delta.realised[map].items() if routes.get(key) != way])

    async def run(self) -> NoReturn:
        loop = asyncio.get_running_loop()
        events = open_events()
        loop.add_reader(events, self._drain, events)
        try:
            while True:
                await self._due.wait()
                self._due.clear()
                needs = self._mesh.nodes.needs()
                concern, self._concern = self._concern, Concern()
                surroundings = await loop.run_in_executor(self._executor, self._survey.ask, needs, concern)
                self._note(dict(self._survey.problems))
                self._asked = needs
                self._devices = _devices(surroundings)
                self._configure(surroundings)
                if surroundings != self._mesh.nodes.surroundings:
                    self._mesh.surround(surroundings)
                if self._mesh.restored and not self._tidied:
                    self._tidied = True
                    await loop.run_in_executor(self._executor, self._survey.tidy, needs)
                if self._shaken:
                    self._shaken = False
                    self._standing = await loop.run_in_executor(self._executor, self._dump)
                self._wake()
                await asyncio.sleep(SETTLE_S)
        finally:
            loop.remove_reader(events)
            events.close()

    def _drain(self, events: socket.socket) -> None:
        """Only what may have moved counts, and was not us; of all if the kernel says that it had to drop events."""
        try:
            while datagram := events.recv(EVENTS_BYTES):
                if shaking := self._is_shaking(datagram):
                    self._shaken = True
                if shaking or not is_own(datagram, protocol=PROTOCOL):
                    self._concern.take(datagram, protocol=PROTOCOL)
                    self._due.set()
        except BlockingIOError:
            return
        except OSError:
            self._concern = Concern(everything=True)
            self._due.set()
            self._shaken = True

    def _is_shaking(self, datagram: bytes) -> bool:
        wanted = self._routes.delta.desired
        return takes_routes(
            datagram,
            devices=self._devices,
            protocol=PROTOCOL,
            is_wanted=lambda prefix: prefix in wanted[ROUTES] or prefix in wanted[EXPORTS],
        )

    def _dump(self) -> dict[str, dict[bytes, bytes]]:
        """Our routes as they stand, as far as the kernel says."""
        try:
            return self._target.standing()
        except TargetError as error:
            logger.warning("the kernel refuses", extra={"what": "routes", "reason": str(error)})
            return {}

    def _routes_stand(self) -> bool:
        return self._mesh.restored and self._routes.in_sync_since is not None and not self._routes.retries.failures

    def _configure(self, surroundings: Surroundings) -> None:
        end = surroundings.ends.get(self._survey.own)
        if isinstance(end, End):
            netns = 0 if self._balanced else self._netns
            self._mesh.want(config_entry(tunnel_ifindex=end.ifindex, underlay_mtu=end.mtu, node_netns=netns))

    def _note(self, problems: dict[str, str]) -> None:
        for name, problem in problems.items():
            if self._problems.get(name) != problem:
                logger.warning("the kernel refuses", extra={"what": name, "reason": problem})
        self._problems = problems


def _devices(surroundings: Surroundings) -> frozenset[int]:
    """Those that routes of ours may lead to."""
    hops = (hop.ifindex for hop in (*surroundings.hops.values(), *surroundings.learned.values()) if hop is not None)
    return frozenset((*hops, *(end.ifindex for end in surroundings.ends.values() if isinstance(end, End))))


def _was_balanced(datapath: Datapath) -> bool:
    """The routes of an earlier process stand: its sockets need not wait again."""
    held = next(iter(datapath.held.get("md_cfg", {}).values()), b"")
    cfg = Cfg.from_buffer_copy(held) if held else Cfg()
    return bool(cfg.tunnel_ifindex) and not cfg.node_netns
