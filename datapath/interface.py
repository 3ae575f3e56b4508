"""Which interface is a pod's: found from its address behind any CNI, without knowing the CNI.

The route to the pod leads to a device. If that is a veth it is the pod's; if it is a bridge, tc on the bridge never
sees what two pods of it say to each other, so neighbour → MAC → forwarding table lead to the port. Works in the
network namespace of the calling thread.
"""

import errno
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from datapath.attach import opened_netlink

_AF_INET, _AF_INET6, _AF_BRIDGE = 2, 10, 7
_NTF_USE = 0x01  # ask the kernel to find the neighbour out
_RESOLVE_S = 0.5


class InterfaceError(Exception):
    """The kernel refused a question about interfaces; str(error) says which."""


class NoInterface(Exception):
    """The pod has no interface of its own on the node, nothing to attach to; str(error) says how it is reached."""


@dataclass(frozen=True, slots=True)
class Interface:
    """The host side of a pod's interface; `mac` is the pod's own, `host_mac` that of the host side."""

    ifindex: int
    name: str
    mac: bytes
    host_mac: bytes


def find_endpoint(
    address: IPv4Address | IPv6Address, *, netlink: IPRoute | None = None, resolve_s: float = _RESOLVE_S
) -> Interface | None:
    """The interface of a pod of this node; None if there is none (yet).

    A neighbour that is not known is asked for and waited for up to `resolve_s` seconds; whoever asks again later finds
    what came meanwhile. Raises InterfaceError, NoInterface.
    """
    try:
        with opened_netlink(netlink) as ipr:
            return _find(ipr, address, resolve_s)
    except NetlinkError as error:
        raise InterfaceError(f"netlink, about {address}: {error}") from error


def _find(ipr: IPRoute, address: IPv4Address | IPv6Address, resolve_s: float) -> Interface | None:
    device = _device_to(ipr, address)
    if device is None:
        return None
    kind = _kind(device)
    if kind == "veth":
        mac = _peer_mac(ipr, device) or _neighbour_mac(ipr, device["index"], address, resolve_s)
        return _interface(device, mac) if mac else None
    if kind == "bridge":
        mac = _neighbour_mac(ipr, device["index"], address, resolve_s)
        port = _port_of(ipr, device["index"], mac) if mac else None
        return _interface(port, mac) if port is not None and mac else None
    if device.get_attr("IFLA_IFNAME") == "lo":  # an address of the node itself
        return None
    name = device.get_attr("IFLA_IFNAME")
    raise NoInterface(f"it is behind the {kind or 'plain'} device {name}, which is no veth or bridge port of its own")


def _interface(link: Any, mac: bytes) -> Interface:
    return Interface(link["index"], link.get_attr("IFLA_IFNAME"), mac, _mac(link.get_attr("IFLA_ADDRESS")))


def _device_to(ipr: IPRoute, address: IPv4Address | IPv6Address) -> Any:
    """The device that the address is directly behind, or None."""
    family = _AF_INET if address.version == 4 else _AF_INET6
    try:
        (route, *_) = ipr.route("get", family=family, dst=str(address))
    except NetlinkError:  # unreachable, prohibited, blackholed
        return None
    if route.get_attr("RTA_GATEWAY") or route.get_attr("RTA_VIA"):
        return None
    return _link(ipr, route.get_attr("RTA_OIF"))


def _link(ipr: IPRoute, ifindex: int, **where: int) -> Any:
    try:
        (link, *_) = ipr.link("get", index=ifindex, **where)
    except NetlinkError as error:
        if error.code in (errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP):
            return None
        raise
    return link


def _kind(link: Any) -> str:
    info = link.get_attr("IFLA_LINKINFO")
    return str(info.get_attr("IFLA_INFO_KIND")) if info else ""


def _peer_mac(ipr: IPRoute, veth: Any) -> bytes | None:
    """Ask for the other end through its network namespace: works before a first packet."""
    peer, namespace = veth.get_attr("IFLA_LINK"), veth.get_attr("IFLA_LINK_NETNSID")
    if peer is None or namespace is None or namespace < 0:
        return None
    # IFLA_TARGET_NETNSID, under its older name.
    link = _link(ipr, peer, IFLA_IF_NETNSID=namespace)
    return _mac(link.get_attr("IFLA_ADDRESS")) if link is not None else None


def _neighbour_mac(ipr: IPRoute, ifindex: int, address: IPv4Address | IPv6Address, resolve_s: float) -> bytes | None:
    """From the neighbour table; if it is not there the kernel is asked to find out."""
    deadline = time.monotonic() + resolve_s
    family = _AF_INET if address.version == 4 else _AF_INET6
    asked = False
    while True:
        for neighbour in ipr.get_neighbours(family=family, ifindex=ifindex):
            mac = neighbour.get_attr("NDA_LLADDR")
            if neighbour["ifindex"] == ifindex and neighbour.get_attr("NDA_DST") == str(address) and mac:
                return _mac(mac)
        if not asked:
            ipr.neigh("replace", family=family, dst=str(address), ifindex=ifindex, flags=_NTF_USE, state=0)
            asked = True
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.01)


def _port_of(ipr: IPRoute, bridge: int, mac: bytes) -> Any:
    """The port behind which the bridge has learned the MAC address, or None."""
    for entry in ipr.get_neighbours(family=_AF_BRIDGE):
        learned = entry.get_attr("NDA_LLADDR")
        if learned and _mac(learned) == mac and entry.get_attr("NDA_MASTER") == bridge:
            port = _link(ipr, entry["ifindex"])
            if port is not None and port["index"] != bridge:
                return port
    return None


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
