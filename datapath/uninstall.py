"""Takes one instance out of the kernel: filters, devices, cgroup attachments, programs and maps. Nothing else.

Idempotent; works with whatever part is there. Filters and devices are those of the calling thread's network
namespace, which is the node's.
"""

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute

from datapath.attach import detach
from datapath.hooks import detach_hooks
from datapath.pins import INTERFACES, Pins, Programs
from datapath.tcx import attached_links, detach_link


@dataclass(frozen=True, slots=True)
class Removed:
    """Names of what was there and is gone."""

    filters: tuple[str, ...]
    devices: tuple[str, ...]
    hooks: tuple[str, ...]
    pins: tuple[str, ...]


def uninstall(bpffs: Path, instance: str) -> Removed:
    """Remove every trace of the instance. Traffic of the mesh stops; everything else goes on."""
    pins = Pins(bpffs, instance)
    versions = sorted(pins.root.iterdir()) if pins.root.is_dir() else []
    with IPRoute() as netlink:
        filters = _remove_programs(netlink, pins, versions)
        devices = _remove_devices(netlink, f"meshd:{instance}")
    hooks = [hook for version in versions for hook in detach_hooks(version / "links")]
    names = [str(path.relative_to(pins.root)) for path in sorted(pins.root.rglob("*")) if path.is_file()]
    if pins.root.is_dir():
        shutil.rmtree(pins.root)
        with suppress(OSError):  # another instance is there
            pins.root.parent.rmdir()
    return Removed(filters, devices, tuple(hooks), tuple(names))


def _remove_programs(netlink: IPRoute, pins: Pins, versions: list[Path]) -> tuple[str, ...]:
    """Links of every layout version, filters of any: the interfaces that had some."""
    links = {link: ifindex for version in versions for link, ifindex in attached_links(version / INTERFACES).items()}
    for link in links:
        detach_link(link)
    programs = Programs(pins.builds / "none", pins.instance)
    return tuple(
        str(link.get_attr("IFLA_IFNAME"))
        for link in netlink.get_links()
        if detach(link["index"], programs, netlink=netlink) or link["index"] in links.values()
    )


def _remove_devices(netlink: IPRoute, alias: str) -> tuple[str, ...]:
    removed = []
    for link in netlink.get_links():
        if link.get_attr("IFLA_IFALIAS") == alias:
            netlink.link("del", index=link["index"])
            removed.append(str(link.get_attr("IFLA_IFNAME")))
    return tuple(removed)
