"""Brings the datapath up and opens it for the reconcilers, in the worker thread: what is pinned and attached already
is used.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from datapath.attach import attach_endpoint, attach_tunnel
from datapath.enforcement import enforce, relax
from datapath.entries import inner_mtu
from datapath.foreign import foreign_programs
from datapath.hooks import HookError
from datapath.interface import Interface, find_endpoint
from datapath.layout import DropReason
from datapath.loader import LoadError, LoadSettings, PinMismatch, ensure_loaded
from datapath.maps import MapError, Maps
from datapath.pins import PinsError, Programs
from datapath.places import AttachError
from datapath.ringbuf import Ring
from meshd.daemon.config import DaemonConfig
from meshd.daemon.kernel import MAPS, MapTarget
from meshd.daemon.podtarget import PodTarget
from meshd.daemon.policing import POLICY_MAPS
from meshd.daemon.routetarget import RouteTarget
from meshd.daemon.survey import Survey, Surveyor
from meshd.daemon.underlay import netns_cookie, underlay_mtu
from meshd.daemon.wantedroutes import BOTH
from meshd.reconcile.target import TargetError
from routing.devices import DeviceError, check_tunnel, ensure_tunnel
from routing.exports import Exports
from routing.routes import HostRoutes, RouteError
from routing.tunnel import BadTunnel, parse_tunnel

NEIGHBOUR_S = 0.02
"""How long a round waits for a neighbour; then the pod is tried again later, and all others are served."""


class DatapathError(Exception):
    """The datapath cannot be brought up; str(error) names what, why and what to do."""


@dataclass(frozen=True, slots=True)
class Datapath:
    """The targets, what they held at the start, who asks the kernel of ways, the number by which the kernel's programs
    know this network namespace, and what had to be written.
    """

    maps: MapTarget
    pods: PodTarget
    held: Mapping[str, Mapping[bytes, bytes]]
    survey: Surveyor
    routes: RouteTarget
    held_routes: Mapping[str, Mapping[bytes, bytes]]
    netns: int
    written: tuple[str, ...]
    foreign_programs: Callable[[], tuple[str, ...]] = tuple
    """Sentences about other socket load balancers on this node."""
    tunnel: str = ""
    """Name of the tunnel device, "" if there is none that could be probed through."""
    ring: Ring | None = None
    """Events of the programs; None where there is no kernel."""
    drops: Callable[[], Mapping[DropReason, int]] = dict
    """Packets dropped since the maps were made, by reason."""


def open_datapath(config: DaemonConfig) -> Datapath:
    """Raises DatapathError."""
    try:
        return _open(config)
    except (LoadError, PinsError, PinMismatch, HookError, MapError, TargetError) as error:
        raise DatapathError(str(error)) from error
    except (DeviceError, AttachError, RouteError, BadTunnel) as error:
        raise DatapathError(str(error)) from error
    except OSError as error:
        raise DatapathError(f"underlay device {config.device!r}: {error.strerror}; give --device another") from error


def _open(config: DaemonConfig) -> Datapath:
    mtu = underlay_mtu(config.device)
    own, alias = parse_tunnel(config.tunnel), f"meshd:{config.name}"
    check_tunnel(own, alias=alias, name=own.own_device)
    sizes = config.map_sizes, config.maglev_size
    loaded = ensure_loaded(LoadSettings(config.bpffs, config.name, config.cgroup, *sizes, config.attachment))
    device = ensure_tunnel(own, alias=alias, name=own.own_device, mtu=inner_mtu(mtu, config.underlay))
    written = [*loaded.written, *([device.name] if device.created else [])]
    if attach_tunnel(device.ifindex, loaded.programs):
        written.append("from_tunnel")
    maps = Maps(loaded.folder)
    target = MapTarget(maps)
    find = partial(find_endpoint, resolve_s=NEIGHBOUR_S)
    attach, police = _Attach(loaded.programs), _Police(loaded.programs)
    pods = PodTarget(maps, find=find, attach=attach, police=police, through_stack=config.through_stack)
    held = {name: target.dump(name) for name in (*MAPS, *POLICY_MAPS)}
    survey = Survey(own, alias, loaded.programs, lambda: underlay_mtu(config.device), config.underlay)
    routes = RouteTarget(HostRoutes(), Exports())
    foreign = partial(foreign_programs, loaded.folder / "links", config.cgroup)
    held_routes = {name: routes.dump(name) for name in sorted(BOTH)}
    told = (tuple(written), foreign, device.name, Ring(loaded.folder), maps.drops)
    return Datapath(target, pods, held, survey, routes, held_routes, netns_cookie(), *told)


@dataclass(frozen=True, slots=True)
class _Attach:
    programs: Programs

    def __call__(self, interface: Interface) -> None:
        try:
            attach_endpoint(interface.ifindex, self.programs)
        except AttachError as error:
            raise TargetError("md_endpoint", "attach", str(error)) from error


@dataclass(frozen=True, slots=True)
class _Police:
    programs: Programs

    def __call__(self, interface: Interface, policed: bool) -> None:
        try:
            if policed:
                enforce(interface.ifindex, self.programs)
            else:
                relax(interface.ifindex, self.programs)
        except AttachError as error:
            raise TargetError("md_iface", "attach", str(error)) from error
