"""Programs as filters of clsact, which every kernel has. A fixed priority and handle, so that replacing loses no packet
and nobody else's filter is touched. Works in the network namespace of the calling thread.
"""

import errno

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from datapath.places import AttachError, Place, Side

_HANDLE = 1
_ETH_P_ALL = 3
_CLSACT = 0xFFFF0000
_PARENTS = {Side.INGRESS: 0xFFF2, Side.EGRESS: 0xFFF3}


def attach_filter(netlink: IPRoute, ifindex: int, place: Place, fd: int, *, owner: str, name: str) -> bool:
    """Put the program behind `fd` there; whether anything was written.

    Raises AttachError, also where a name that does not begin with `owner` holds the place.
    """
    found = filter_at(netlink, ifindex, place)
    if found == name:
        return False
    if found and not found.startswith(owner):
        raise AttachError(
            f"interface {ifindex}: priority {place.priority} is held by {found!r}; "
            "uninstall that one or give this instance its own node"
        )
    try:
        _ensure_clsact(netlink, ifindex)
        netlink.tc(
            "replace-filter",
            "bpf",
            ifindex,
            _HANDLE,
            fd=fd,
            name=name,
            parent=_parent(place),
            prio=place.priority,
            protocol=_ETH_P_ALL,
            classid=1,
            direct_action=True,
        )
    except NetlinkError as error:
        raise AttachError(
            f"interface {ifindex}: {name}: {error}; the interface may be gone, "
            "or the kernel lacks CONFIG_NET_CLS_BPF or CONFIG_NET_SCH_INGRESS"
        ) from error
    return True


def detach_filter(netlink: IPRoute, ifindex: int, place: Place, *, owner: str) -> bool:
    """Remove the owner's filter, if it is there; whether it was. The clsact qdisc stays: others may use it."""
    if not filter_at(netlink, ifindex, place).startswith(owner):
        return False
    netlink.tc("del-filter", "bpf", ifindex, _HANDLE, parent=_parent(place), prio=place.priority, protocol=_ETH_P_ALL)
    return True


def filter_at(netlink: IPRoute, ifindex: int, place: Place) -> str:
    """The name of the filter in that place, or an empty string."""
    try:
        for message in netlink.get_filters(index=ifindex, parent=_CLSACT | _PARENTS[place.side]):
            options = message.get_attr("TCA_OPTIONS")
            if message["info"] >> 16 == place.priority and message["handle"] == _HANDLE and options:
                return str(options.get_attr("TCA_BPF_NAME"))
    except NetlinkError as error:
        if error.code not in (errno.ENODEV, errno.EINVAL):
            raise
    return ""


def _parent(place: Place) -> str:
    return f"ffff:{_PARENTS[place.side]:x}"


def _ensure_clsact(netlink: IPRoute, ifindex: int) -> None:
    try:
        netlink.tc("add", "clsact", ifindex)
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise
