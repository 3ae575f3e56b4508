"""Asks the kernel what the plan needs to know, in the worker thread: makes the tunnel devices that nodes announce,
attaches the programs, looks up ways to nodes. What cannot be had is an answer too, with its reason.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from datapath.attach import attach_network, attach_tunnel
from datapath.entries import inner_mtu
from datapath.pins import Programs
from datapath.places import AttachError
from meshd.daemon.knownways import KnownWays
from meshd.daemon.netevents import EVERYTHING, Concern
from meshd.daemon.nodes import MAX_TUNNELS, Needs
from routing.devices import DeviceError, ensure_tunnel, remove_tunnels
from routing.plan import End, Surroundings
from routing.tunnel import Tunnel


class Surveyor(Protocol):
    """What Survey does."""

    own: Tunnel
    problems: Mapping[str, str]

    def ask(self, needs: Needs, concern: Concern = EVERYTHING) -> Surroundings: ...

    def tidy(self, needs: Needs) -> tuple[str, ...]: ...


@dataclass(slots=True)
class Survey:
    """`own` is the tunnel that this node announces; its device is there from the start and serves those who announce
    the same. Devices stay while the process lives: who needs them not now may need them again; the next one tidies up.
    """

    own: Tunnel
    alias: str
    programs: Programs
    underlay: Callable[[], int]
    """The underlay's MTU now. Raises OSError."""
    underlay_version: int = 4
    problems: Mapping[str, str] = field(default_factory=dict)
    """What could not be had, for status."""
    _ways: KnownWays = field(default_factory=KnownWays)

    def ask(self, needs: Needs, concern: Concern = EVERYTHING) -> Surroundings:
        """Of the ways to nodes those are asked for that are new, or that `concern` may have moved."""
        self.problems = {}
        try:
            mtu = self.underlay()
        except OSError as error:
            self._ways.forget()
            reason = self._refused("underlay", f"underlay device: {error.strerror}; give --device another")
            return Surroundings(dict.fromkeys(needs.hops), dict.fromkeys(needs.tunnels | needs.refused, reason))
        ends = {tunnel: self._end(tunnel, mtu) for tunnel in sorted(needs.tunnels | {self.own})}
        for tunnel in sorted(needs.refused - {self.own}):
            few = f"more than {MAX_TUNNELS} kinds and ports of tunnels are announced, {tunnel} by the fewest nodes"
            ends[tunnel] = self._refused(str(tunnel), few)
        try:
            self._ways.follow(needs.hops, concern)
        except OSError as error:
            self._refused("routes", f"the kernel does not tell the ways to nodes: {error.strerror}")
        for ifindex, device in self._ways.devices.items():
            self._attach(ifindex, device)
        return Surroundings(self._ways.hops, ends, self._ways.learned)

    def tidy(self, needs: Needs) -> tuple[str, ...]:
        """Tunnel devices of an earlier process that nobody needs now go: their names."""
        keep = frozenset(self._name(tunnel) for tunnel in needs.tunnels | {self.own})
        return remove_tunnels(alias=self.alias, keep=keep)

    def _name(self, tunnel: Tunnel) -> str:
        return tunnel.own_device if tunnel == self.own else tunnel.device

    def _end(self, tunnel: Tunnel, mtu: int) -> End | str:
        name = self._name(tunnel)
        try:
            device = ensure_tunnel(tunnel, alias=self.alias, name=name, mtu=inner_mtu(mtu, self.underlay_version))
            attach_tunnel(device.ifindex, self.programs)
        except (DeviceError, AttachError) as error:
            return self._refused(str(tunnel), str(error))
        return End(device.ifindex, device.name, mtu)

    def _attach(self, ifindex: int, device: str) -> None:
        try:
            attach_network(ifindex, self.programs)
        except AttachError as error:
            self._refused(device, str(error))

    def _refused(self, what: str, reason: str) -> str:
        self.problems = {**self.problems, what: reason}
        return reason
