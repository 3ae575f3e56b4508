"""The tc programs on their interfaces: from_pod and to_pod on a pod's host side, from_tunnel and to_tunnel on the
tunnel devices, from_network on the underlay device.

Attaches with a fixed priority and handle, so that replacing loses
no packet and nobody else's filter is touched. Works in the network namespace of the calling thread; synchronous
(pyroute2's synchronous interface must not run inside an event loop).
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from datapath import bpf
from datapath.pins import Programs

PRIORITY = 109
HANDLE = 1
_ETH_P_ALL = 3
_CLSACT = 0xFFFF0000


class Side(IntEnum):
    """A side of clsact."""

    INGRESS = 0xFFF2
    EGRESS = 0xFFF3

    @property
    def parent(self) -> str:
        return f"ffff:{self:x}"


PROGRAMS = {
    "from_pod": Side.INGRESS,
    "to_pod": Side.EGRESS,
    "from_tunnel": Side.INGRESS,
    "to_tunnel": Side.EGRESS,
    "from_network": Side.INGRESS,
}


class AttachError(Exception):
    """A program could not be attached; the text names the interface, the reason and the remedy."""


def attach_endpoint(ifindex: int, programs: Programs, *, netlink: IPRoute | None = None) -> bool:
    """from_pod and to_pod on a pod's host side; whether anything was written. Raises AttachError."""
    written = [_attach(ifindex, name, programs, netlink) for name in ("from_pod", "to_pod")]
    return any(written)


def attach_tunnel(ifindex: int, programs: Programs, *, netlink: IPRoute | None = None) -> bool:
    """from_tunnel and to_tunnel on a tunnel device; whether anything was written. Raises AttachError."""
    written = [_attach(ifindex, name, programs, netlink) for name in ("from_tunnel", "to_tunnel")]
    return any(written)


def attach_network(ifindex: int, programs: Programs, *, netlink: IPRoute | None = None) -> bool:
    """from_network on the underlay device; whether anything was written. Raises AttachError."""
    return _attach(ifindex, "from_network", programs, netlink)


def detach(ifindex: int, instance: str, *, netlink: IPRoute | None = None) -> bool:
    """Remove the instance's filters, if any are there; whether they were. The clsact qdisc stays: others may use it."""
    found = False
    with opened_netlink(netlink) as ipr:
        for side in Side:
            if attached(ifindex, side=side, netlink=ipr).startswith(_owner(instance)):
                ipr.tc("del-filter", "bpf", ifindex, HANDLE, parent=side.parent, prio=PRIORITY, protocol=_ETH_P_ALL)
                found = True
    return found


def attached(ifindex: int, *, side: Side = Side.INGRESS, netlink: IPRoute | None = None) -> str:
    """The name of the filter in our place on a side of the interface, or an empty string.

    Ours are `meshd:<instance>:<program>:<number of the program in the kernel>`.
    """
    with opened_netlink(netlink) as ipr:
        for message in ipr.get_filters(index=ifindex, parent=_CLSACT | side):
            options = message.get_attr("TCA_OPTIONS")
            if message["info"] >> 16 == PRIORITY and message["handle"] == HANDLE and options:
                return str(options.get_attr("TCA_BPF_NAME"))
        return ""


@contextmanager
def opened_netlink(netlink: IPRoute | None) -> Iterator[IPRoute]:
    """The given socket, or one of its own for the time of the block."""
    if netlink is not None:
        yield netlink
        return
    with IPRoute() as own:
        yield own


def _attach(ifindex: int, program: str, programs: Programs, netlink: IPRoute | None) -> bool:
    owner = _owner(programs.instance)
    with opened_netlink(netlink) as ipr, bpf.opened(programs.path(program)) as fd:
        # The kernel tells a filter's program number, but pyroute2 does not decode it: so it is in the name.
        name = f"{owner}{program}:{bpf.program_id(fd)}"
        found = attached(ifindex, side=PROGRAMS[program], netlink=ipr)
        if found == name:
            return False
        if found and not found.startswith(owner):
            raise AttachError(
                f"interface {ifindex}: priority {PRIORITY} is held by {found!r}; "
                "uninstall that one or give this instance its own node"
            )
        _replace(ipr, ifindex, fd, name, PROGRAMS[program])
        return True


def _owner(instance: str) -> str:
    return f"meshd:{instance}:"


def _replace(ipr: IPRoute, ifindex: int, fd: int, name: str, side: Side) -> None:
    try:
        _ensure_clsact(ipr, ifindex)
        ipr.tc(
            "replace-filter",
            "bpf",
            ifindex,
            HANDLE,
            fd=fd,
            name=name,
            parent=side.parent,
            prio=PRIORITY,
            protocol=_ETH_P_ALL,
            classid=1,
            direct_action=True,
        )
    except NetlinkError as error:
        raise AttachError(
            f"interface {ifindex}: {name}: {error}; the interface may be gone, "
            "or the kernel lacks CONFIG_NET_CLS_BPF or CONFIG_NET_SCH_INGRESS"
        ) from error


def _ensure_clsact(ipr: IPRoute, ifindex: int) -> None:
    try:
        ipr.tc("add", "clsact", ifindex)
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise
