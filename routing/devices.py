"""The tunnel devices that meshd makes: create or adopt. In the network namespace of the calling thread.

A device in collect-metadata mode sends to its own UDP port and receives on it, so nodes that announce another port than
ours are reached by a device of theirs. All carry the alias `meshd:<instance>`, which marks them as ours.
"""

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from routing.tunnel import DEFAULT, IPV6_LEAST, Encapsulation, Tunnel

DEFAULT_PORT = DEFAULT.port
NAMES = ("md_vxlan", "md_geneve")
"""What the names of our devices begin with."""
_ADDRGEN_NONE = 1
_NOARP = 0x80
_KINDS = {Encapsulation.VXLAN: "vxlan", Encapsulation.GENEVE: "geneve"}
_PORTS = {Encapsulation.VXLAN: "IFLA_VXLAN_PORT", Encapsulation.GENEVE: "IFLA_GENEVE_PORT"}
_METADATA = {Encapsulation.VXLAN: "IFLA_VXLAN_COLLECT_METADATA", Encapsulation.GENEVE: "IFLA_GENEVE_COLLECT_METADATA"}


class DeviceError(Exception):
    """A device cannot be made or adopted; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Device:
    """`created` is False where it was there already."""

    ifindex: int
    name: str
    created: bool


def ensure_tunnel(tunnel: Tunnel, *, alias: str, name: str, mtu: int = 0) -> Device:
    """A tunnel device in collect-metadata mode on the tunnel's port, up. `mtu` in bytes is that of the packets inside,
    0 leaves the kernel's; a device of less than 1280 bytes would be none for IPv6.

    Raises DeviceError if the name is somebody else's, the port is another device's, or the kernel has no such devices.
    """
    with IPRoute() as ipr:
        found = _find(ipr, name)
        device = _adopt(ipr, found, alias, tunnel) if found is not None else None
        if device is None:
            device = _create(ipr, name, tunnel, alias)
        _ensure_mtu(ipr, device, mtu and max(mtu, IPV6_LEAST))
        _ensure_silent(ipr, device.ifindex)
        return device


def ensure_vxlan(*, alias: str, name: str = "md_vxlan", port: int = DEFAULT_PORT) -> Device:
    """`ensure_tunnel` with VXLAN."""
    return ensure_tunnel(Tunnel(Encapsulation.VXLAN, port), alias=alias, name=name)


def check_tunnel(tunnel: Tunnel, *, alias: str, name: str) -> None:
    """Whether `ensure_tunnel` would find its place free, before anything is done. A node has one instance of meshd.

    Raises DeviceError if another instance is here, the name is somebody else's, or the port another device's.
    """
    if others := other_owners(alias):
        raise DeviceError(
            f"{others[0]} serves this node, and a node has one instance: stop that one and take it out "
            f"('meshd uninstall --instance {others[0].partition(':')[2]} …'), or start this one under its name"
        )
    with IPRoute() as ipr:
        if (found := _find(ipr, name)) is not None:
            _check_owner(found, alias)
        elif holder := next(_holders(ipr, tunnel.port), ""):
            raise DeviceError(_held(name, tunnel, _device(holder)))


def other_owners(alias: str) -> list[str]:
    """The aliases (`meshd:<instance>`) of tunnel devices that other instances have here."""
    with IPRoute() as ipr:
        found = {
            str(link.get_attr("IFLA_IFALIAS") or "")
            for link in ipr.get_links()
            if str(link.get_attr("IFLA_IFNAME")).startswith(NAMES)
        }
    return sorted(owner for owner in found if owner.startswith("meshd:") and owner != alias)


def remove_tunnels(*, alias: str, keep: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Our tunnel devices but those to `keep`, by name, go; the names of those that went."""
    removed = []
    with IPRoute() as ipr:
        for link in ipr.get_links():
            name = str(link.get_attr("IFLA_IFNAME"))
            if name.startswith(NAMES) and name not in keep and link.get_attr("IFLA_IFALIAS") == alias:
                ipr.link("del", index=link["index"])
                removed.append(name)
    return tuple(removed)


def _find(ipr: IPRoute, name: str) -> Any:
    return next(iter(ipr.get_links(ifname=name)), None)


def _adopt(ipr: IPRoute, link: Any, alias: str, tunnel: Tunnel) -> Device | None:
    """Use what is there; None if it was ours with other settings, and is gone now."""
    name = str(link.get_attr("IFLA_IFNAME"))
    _check_owner(link, alias)
    index = int(link["index"])
    if not _is_collect_metadata(link, tunnel):
        ipr.link("del", index=index)
        return None
    if not link["flags"] & _NOARP:
        ipr.link("set", index=index, flags=_NOARP, change=_NOARP)
    if link["state"] != "up":
        _bring_up(ipr, index, name, tunnel)
    return Device(index, name, created=False)


def _check_owner(link: Any, alias: str) -> None:
    name, owner = str(link.get_attr("IFLA_IFNAME")), link.get_attr("IFLA_IFALIAS")
    if owner != alias:
        raise DeviceError(
            f"{name} exists with alias {owner!r}, expected {alias!r}: remove it with "
            f"'ip link del {name}' if nobody uses it, or stop the other instance"
        )


def _data(link: Any, kind: str) -> Any:
    info = link.get_attr("IFLA_LINKINFO")
    return info.get_attr("IFLA_INFO_DATA") if info and info.get_attr("IFLA_INFO_KIND") == kind else None


def _is_collect_metadata(link: Any, tunnel: Tunnel) -> bool:
    data = _data(link, _KINDS[tunnel.encapsulation])
    if data is None:
        return False
    metadata = data.get_attr(_METADATA[tunnel.encapsulation])
    # Geneve's is a flag without a value: there or not.
    is_set = bool(metadata) if tunnel.encapsulation is Encapsulation.VXLAN else metadata is not None
    return is_set and data.get_attr(_PORTS[tunnel.encapsulation]) == tunnel.port


def _holders(ipr: IPRoute, port: int) -> Iterator[str]:
    """Names of the tunnel devices of this namespace that have the UDP port."""
    for link in ipr.get_links():
        for encapsulation, kind in _KINDS.items():
            data = _data(link, kind)
            if data is not None and data.get_attr(_PORTS[encapsulation]) == port:
                yield str(link.get_attr("IFLA_IFNAME"))


def _create(ipr: IPRoute, name: str, tunnel: Tunnel, alias: str) -> Device:
    if holder := next(_holders(ipr, tunnel.port), ""):
        raise DeviceError(_held(name, tunnel, _device(holder)))
    try:
        ipr.link("add", ifname=name, **_attributes(tunnel))
    except NetlinkError as error:
        raise _refused(name, tunnel, error) from error
    link = _find(ipr, name)
    index = int(link["index"])
    try:
        _silence(ipr, index)
        ipr.link("set", index=index, ifalias=alias)
        # Nobody answers to neighbour discovery: the programs at both ends know where packets go.
        ipr.link("set", index=index, flags=_NOARP, change=_NOARP)
        _bring_up(ipr, index, name, tunnel)
    except (NetlinkError, DeviceError):
        ipr.link("del", index=index)
        raise
    return Device(index, name, created=True)


def _silence(ipr: IPRoute, index: int) -> None:
    """No link-local address: the device would announce itself into the tunnel for nobody."""
    addrgen = {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", _ADDRGEN_NONE]]}
    ipr.link("set", index=index, IFLA_AF_SPEC={"attrs": [["AF_INET6", addrgen]]})


def _ensure_silent(ipr: IPRoute, index: int) -> None:
    """Below 1280 bytes a device has no IPv6; when it grows again, the kernel has forgotten what was set."""
    (link,) = ipr.get_links(index)
    families = link.get_attr("IFLA_AF_SPEC")
    six = families.get_attr("AF_INET6") if families else None
    if six is not None and six.get_attr("IFLA_INET6_ADDR_GEN_MODE") != _ADDRGEN_NONE:
        _silence(ipr, index)


def _attributes(tunnel: Tunnel) -> dict[str, Any]:
    if tunnel.encapsulation is Encapsulation.GENEVE:
        return {"kind": "geneve", "geneve_collect_metadata": True, "geneve_port": tunnel.port}
    return {"kind": "vxlan", "vxlan_collect_metadata": True, "vxlan_learning": False, "vxlan_port": tunnel.port}


def _bring_up(ipr: IPRoute, index: int, name: str, tunnel: Tunnel) -> None:
    try:
        ipr.link("set", index=index, state="up")
    except NetlinkError as error:
        raise _refused(name, tunnel, error) from error


def _ensure_mtu(ipr: IPRoute, device: Device, mtu: int) -> None:
    """For what the node's stack sends: the programs look at their own figure."""
    if not mtu:
        return
    (link,) = ipr.get_links(device.ifindex)
    if link.get_attr("IFLA_MTU") != mtu:
        try:
            ipr.link("set", index=device.ifindex, mtu=mtu)
        except NetlinkError as error:
            raise DeviceError(f"{device.name}: the kernel refuses an MTU of {mtu}: {error}") from error


def _device(holder: str) -> str:
    return f"the device {holder} ('ip -d link show {holder}')"


def _held(name: str, tunnel: Tunnel, holder: str) -> str:
    return (
        f"{name}: UDP port {tunnel.port} is held by {holder}: give meshd another one with --tunnel, and the "
        f"agent, which announces it (meshd.io/tunnel), the same"
    )


def _refused(name: str, tunnel: Tunnel, error: NetlinkError) -> DeviceError:
    if error.code in (errno.EADDRINUSE, errno.EEXIST):
        return DeviceError(_held(name, tunnel, "another program on this node ('ss -ulpn')"))
    if error.code == errno.EOPNOTSUPP:
        option = {Encapsulation.VXLAN: "CONFIG_VXLAN", Encapsulation.GENEVE: "CONFIG_GENEVE"}[tunnel.encapsulation]
        return DeviceError(f"{name}: this kernel has no {tunnel.encapsulation} devices: {option} is needed")
    return DeviceError(f"{name}: {error}")
