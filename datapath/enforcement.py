"""The policy programs on a pod's interface: policy_out on the ingress of its host side, policy_in on the egress.

They stand only where a policy holds: other pods pay nothing. policy_out comes before from_pod, and chooses the backend
where a packet goes to a frontend; policy_in comes before to_pod: so both see the backend. Works in the network
namespace of the calling thread.
"""

import errno

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from datapath import bpf
from datapath.attach import PRIORITY, AttachError, opened_netlink
from datapath.pins import Programs

HANDLE = 1
_ETH_P_ALL = 3
_CLSACT = 0xFFFF0000
_INGRESS, _EGRESS = 0xFFF2, 0xFFF3
_PLACES = {"policy_out": (_INGRESS, PRIORITY - 1), "policy_in": (_EGRESS, PRIORITY - 1)}


def enforce(ifindex: int, programs: Programs, *, netlink: IPRoute | None = None) -> bool:
    """Both programs on the interface; whether anything was written. Raises AttachError."""
    written = False
    with opened_netlink(netlink) as ipr:
        for program, (side, priority) in _PLACES.items():
            with bpf.opened(programs.path(program)) as fd:
                name = f"meshd:{programs.instance}:{program}:{bpf.program_id(fd)}"
                found = _found(ipr, ifindex, side, priority)
                if found == name:
                    continue
                if found and not found.startswith(f"meshd:{programs.instance}:"):
                    raise AttachError(
                        f"interface {ifindex}: priority {priority} is held by {found!r}; uninstall that one"
                    )
                _replace(ipr, ifindex, side, priority, fd, name)
                written = True
    return written


def relax(ifindex: int, instance: str, *, netlink: IPRoute | None = None) -> bool:
    """Neither program on the interface any more; whether one of the instance was there."""
    removed = False
    with opened_netlink(netlink) as ipr:
        for side, priority in _PLACES.values():
            if _found(ipr, ifindex, side, priority).startswith(f"meshd:{instance}:"):
                ipr.tc("del-filter", "bpf", ifindex, HANDLE, parent=_parent(side), prio=priority, protocol=_ETH_P_ALL)
                removed = True
    return removed


def _found(ipr: IPRoute, ifindex: int, side: int, priority: int) -> str:
    """The name of the filter in our place, or an empty string."""
    try:
        for message in ipr.get_filters(index=ifindex, parent=_CLSACT | side):
            options = message.get_attr("TCA_OPTIONS")
            if message["info"] >> 16 == priority and message["handle"] == HANDLE and options:
                return str(options.get_attr("TCA_BPF_NAME"))
    except NetlinkError as error:
        if error.code not in (errno.ENODEV, errno.EINVAL):
            raise
    return ""


def _replace(ipr: IPRoute, ifindex: int, side: int, priority: int, fd: int, name: str) -> None:
    try:
        try:
            ipr.tc("add", "clsact", ifindex)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise
        ipr.tc(
            "replace-filter",
            "bpf",
            ifindex,
            HANDLE,
            fd=fd,
            name=name,
            parent=_parent(side),
            prio=priority,
            protocol=_ETH_P_ALL,
            classid=1,
            direct_action=True,
        )
    except NetlinkError as error:
        raise AttachError(f"interface {ifindex}: {name}: {error}; the interface may be gone") from error


def _parent(side: int) -> str:
    return f"ffff:{side:x}"
