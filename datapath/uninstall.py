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
from datapath.enforcement import relax
from datapath.hooks import detach_hooks
from datapath.pins import Pins


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
    with IPRoute() as netlink:
        filters = _remove_filters(netlink, instance)
        devices = _remove_devices(netlink, f"meshd:{instance}")
    versions = sorted(pins.root.iterdir()) if pins.root.is_dir() else []
    hooks = [hook for version in versions for hook in detach_hooks(version / "links")]
    names = [str(path.relative_to(pins.root)) for path in sorted(pins.root.rglob("*")) if path.is_file()]
    if pins.root.is_dir():
        shutil.rmtree(pins.root)
        with suppress(OSError):  # another instance is there
            pins.root.parent.rmdir()
    return Removed(filters, devices, tuple(hooks), tuple(names))


def _remove_filters(netlink: IPRoute, instance: str) -> tuple[str, ...]:
    return tuple(
        str(link.get_attr("IFLA_IFNAME"))
        for link in netlink.get_links()
        if any([detach(link["index"], instance, netlink=netlink), relax(link["index"], instance, netlink=netlink)])
    )


def _remove_devices(netlink: IPRoute, alias: str) -> tuple[str, ...]:
    removed = []
    for link in netlink.get_links():
        if link.get_attr("IFLA_IFALIAS") == alias:
            netlink.link("del", index=link["index"])
            removed.append(str(link.get_attr("IFLA_IFNAME")))
    return tuple(removed)
