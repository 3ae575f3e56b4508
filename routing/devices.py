"""The devices that meshd makes: `ensure_vxlan`, create or adopt. In the network namespace of the calling thread."""

import errno
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

DEFAULT_PORT = 8473
_ADDRGEN_NONE = 1


class DeviceError(Exception):
    """A device cannot be made or adopted; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Device:
    """`created` is False where it was there already."""

    ifindex: int
    name: str
    created: bool


def ensure_vxlan(*, alias: str, name: str = "md_vxlan", port: int = DEFAULT_PORT) -> Device:
    """A VXLAN device in collect-metadata mode on UDP `port`, up. `alias` is `meshd:<instance>` and marks it as ours.

    Raises DeviceError if the name is somebody else's, or the port is another VXLAN device's.
    """
    with IPRoute() as ipr:
        found = _find(ipr, name)
        if found is not None:
            adopted = _adopt(ipr, found, alias, port)
            if adopted is not None:
                return adopted
        return _create(ipr, name, port, alias)


def _find(ipr: IPRoute, name: str) -> Any:
    return next(iter(ipr.get_links(ifname=name)), None)


def _adopt(ipr: IPRoute, link: Any, alias: str, port: int) -> Device | None:
    """Use what is there; None if it was ours with other settings, and is gone now."""
    name = str(link.get_attr("IFLA_IFNAME"))
    owner = link.get_attr("IFLA_IFALIAS")
    if owner != alias:
        raise DeviceError(
            f"{name} exists with alias {owner!r}, expected {alias!r}: remove it with "
            f"'ip link del {name}' if nobody uses it, or stop the other instance"
        )
    index = int(link["index"])
    if not _is_collect_metadata(link, port):
        ipr.link("del", index=index)
        return None
    if link["state"] != "up":
        _bring_up(ipr, index, name, port)
    return Device(index, name, created=False)


def _is_collect_metadata(link: Any, port: int) -> bool:
    info = link.get_attr("IFLA_LINKINFO")
    data = info.get_attr("IFLA_INFO_DATA") if info else None
    if data is None or info.get_attr("IFLA_INFO_KIND") != "vxlan":
        return False
    return bool(data.get_attr("IFLA_VXLAN_COLLECT_METADATA")) and data.get_attr("IFLA_VXLAN_PORT") == port


def _create(ipr: IPRoute, name: str, port: int, alias: str) -> Device:
    try:
        ipr.link(
            "add",
            ifname=name,
            kind="vxlan",
            vxlan_collect_metadata=True,
            vxlan_learning=False,
            vxlan_port=port,
        )
    except NetlinkError as error:
        raise _refused(name, port, error) from error
    link = _find(ipr, name)
    index = int(link["index"])
    try:
        # No link-local address: the device would announce itself into the tunnel for nobody.
        addrgen = {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", _ADDRGEN_NONE]]}
        ipr.link("set", index=index, IFLA_AF_SPEC={"attrs": [["AF_INET6", addrgen]]})
        ipr.link("set", index=index, ifalias=alias)
        _bring_up(ipr, index, name, port)
    except (NetlinkError, DeviceError):
        ipr.link("del", index=index)
        raise
    return Device(index, name, created=True)


def _bring_up(ipr: IPRoute, index: int, name: str, port: int) -> None:
    try:
        ipr.link("set", index=index, state="up")
    except NetlinkError as error:
        raise _refused(name, port, error) from error


def _refused(name: str, port: int, error: NetlinkError) -> DeviceError:
    if error.code in (errno.EADDRINUSE, errno.EEXIST):
        return DeviceError(
            f"{name}: UDP port {port} is held by another VXLAN device or program on this node "
            f"('ip -d link show type vxlan', 'ss -ulpn'): give meshd another tunnel port"
        )
    if error.code == errno.EOPNOTSUPP:
        return DeviceError(f"{name}: this kernel has no VXLAN: CONFIG_VXLAN is needed")
    return DeviceError(f"{name}: {error}")
