"""The tc programs on their interfaces: from_pod and to_pod on a pod's host side, from_tunnel and to_tunnel on the
tunnel devices, from_network on the underlay device; and policy_out and policy_in (enforcement.py).

By TCX links where the kernel has them, else by filters of clsact. Works in the network namespace of the calling thread;
synchronous (pyroute2's synchronous interface must not run inside an event loop).
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pyroute2 import IPRoute

from datapath import bpf
from datapath.clsact import attach_filter, detach_filter, filter_at
from datapath.pins import Attachment, Programs
from datapath.places import PLACES, AttachError, Place
from datapath.tcx import attach_link, attached_links, detach_link, has_tcx, path_of, pin_link, remove_dead

ENDPOINT = ("from_pod", "to_pod")
TUNNEL = ("from_tunnel", "to_tunnel")
NETWORK = ("from_network",)


def attach_endpoint(ifindex: int, programs: Programs, *, netlink: IPRoute | None = None) -> bool:
    """from_pod and to_pod on a pod's host side; whether anything was written. Raises AttachError."""
    return attach(ifindex, ENDPOINT, programs, netlink=netlink)


def attach_tunnel(ifindex: int, programs: Programs, *, netlink: IPRoute | None = None) -> bool:
    """from_tunnel and to_tunnel on a tunnel device; whether anything was written. Raises AttachError."""
    return attach(ifindex, TUNNEL, programs, netlink=netlink)


def attach_network(ifindex: int, programs: Programs, *, netlink: IPRoute | None = None) -> bool:
    """from_network on the underlay device; whether anything was written. Raises AttachError."""
    return attach(ifindex, NETWORK, programs, netlink=netlink)


def attach(ifindex: int, names: Iterable[str], programs: Programs, *, netlink: IPRoute | None = None) -> bool:
    """Each of these programs in its place; whether anything was written. Raises AttachError."""
    put = _put_link if uses_tcx(programs) else _put_filter
    written = [put(ifindex, name, programs, netlink) for name in names]
    return any(written)


def detach(
    ifindex: int, programs: Programs, names: Iterable[str] = tuple(PLACES), *, netlink: IPRoute | None = None
) -> bool:
    """Remove the instance's programs of these names, if any are there, however attached; whether they were."""
    listed = tuple(names)
    found = [detach_link(path_of(programs.interfaces, ifindex, name)) for name in listed]
    with opened_netlink(netlink) as ipr:
        found += [detach_filter(ipr, ifindex, place, owner=_owner(programs)) for place in _places(listed)]
    return any(found)


def attached(ifindex: int, programs: Programs, *, netlink: IPRoute | None = None) -> tuple[str, ...]:
    """The names of the instance's programs on an interface, however attached."""
    linked = {link.name for link, index in attached_links(programs.interfaces).items() if index == ifindex}
    with opened_netlink(netlink) as ipr:
        filters = {filter_at(ipr, ifindex, place) for place in _places(PLACES)}
    return tuple(
        name
        for name in PLACES
        if f"{ifindex}-{name}" in linked or any(f.startswith(f"{_owner(programs)}{name}:") for f in filters)
    )


def uses_tcx(programs: Programs) -> bool:
    """Raises AttachError where TCX is asked for and the kernel has none."""
    if programs.attachment is Attachment.TCX and not has_tcx():
        raise AttachError("attachment: tcx: this kernel has no TCX, which came with 6.6; use 'auto' or 'clsact'")
    return programs.attachment is not Attachment.CLSACT and has_tcx()


@contextmanager
def opened_netlink(netlink: IPRoute | None) -> Iterator[IPRoute]:
    """The given socket, or one of its own for the time of the block."""
    if netlink is not None:
        yield netlink
        return
    with IPRoute() as own:
        yield own


def _put_link(ifindex: int, name: str, programs: Programs, netlink: IPRoute | None) -> bool:
    links, place = programs.interfaces, PLACES[name]
    with bpf.opened(programs.path(name)) as fd:
        written, link_fd = attach_link(links, ifindex, name, place, fd)
    if link_fd is None:
        return written
    try:
        # What an older kernel or setting left stays until the link is there, and the pin says that it is gone.
        with opened_netlink(netlink) as ipr:
            detach_filter(ipr, ifindex, place, owner=_owner(programs))
        pin_link(links, ifindex, name, link_fd)
    finally:
        os.close(link_fd)
    remove_dead(links)
    return True


def _put_filter(ifindex: int, name: str, programs: Programs, netlink: IPRoute | None) -> bool:
    with opened_netlink(netlink) as ipr, bpf.opened(programs.path(name)) as fd:
        # The kernel tells a filter's program number, but pyroute2 does not decode it: so it is in the name.
        full = f"{_owner(programs)}{name}:{bpf.program_id(fd)}"
        written = attach_filter(ipr, ifindex, PLACES[name], fd, owner=_owner(programs), name=full)
    return detach_link(path_of(programs.interfaces, ifindex, name)) or written


def _owner(programs: Programs) -> str:
    return f"meshd:{programs.instance}:"


def _places(names: Iterable[str]) -> set[Place]:
    return {PLACES[name] for name in names}
