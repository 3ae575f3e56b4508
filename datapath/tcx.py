"""Programs as TCX links, where the kernel has them (6.6): no qdisc, no filter, and none of their counters.

A link is pinned as `<ifindex>-<program>` and replaced in place; it dies with its interface, its pin does not. Ours are
put after whatever is there, policy directly before our own. Works in the network namespace of the calling thread.
"""

import errno
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from datapath import bpf
from datapath.places import AttachError, Place, Side

_LOOPBACK = 1


@cache
def has_tcx() -> bool:
    """Whether this kernel has TCX: it answers who is attached to the loopback device, which every namespace has."""
    try:
        bpf.interface_programs(_LOOPBACK, Side.INGRESS)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
            return False
        raise
    return True


def attach_link(links: Path, ifindex: int, program: str, place: Place, program_fd: int) -> tuple[bool, int | None]:
    """Whether anything was written, and the descriptor of a new link, which lives when it is pinned or as long as that.

    Raises AttachError, also where another instance's program of that name is attached.
    """
    link = path_of(links, ifindex, program)
    number = bpf.program_id(program_fd)
    if link.exists():
        with bpf.opened(link) as link_fd:
            info = bpf.tcx_link_info(link_fd)
            if info.ifindex == ifindex:
                if info.program_id != number:
                    bpf.update_link(link_fd, program_fd)
                return info.program_id != number, None
    try:
        _refuse_another(ifindex, program, place)
        return True, _create(links, ifindex, place, program_fd)
    except OSError as error:
        raise AttachError(f"interface {ifindex}: {program}: {error.strerror}; the interface may be gone") from error


def pin_link(links: Path, ifindex: int, program: str, link_fd: int) -> None:
    """Keep the link; an older one that is pinned there has lost its interface."""
    link = path_of(links, ifindex, program)
    link.unlink(missing_ok=True)
    bpf.pin_object(link_fd, link)


def detach_link(link: Path) -> bool:
    """Take it off its interface and remove its pin; whether it was there."""
    if not link.exists():
        return False
    with bpf.opened(link) as link_fd:
        try:
            bpf.detach_link(link_fd)
        except OSError as error:
            if error.errno != errno.ENOLINK:  # its interface is gone
                raise
    link.unlink()
    return True


def remove_dead(links: Path) -> tuple[str, ...]:
    """Remove the pins of links whose interface is gone: their names."""
    dead = [link for link, ifindex in _pinned(links) if not ifindex]
    for link in dead:
        link.unlink()
    return tuple(link.name for link in dead)


def attached_links(links: Path) -> dict[Path, int]:
    """The pinned links and their interfaces' numbers; 0: it is gone."""
    return dict(_pinned(links))


def path_of(links: Path, ifindex: int, program: str) -> Path:
    return links / f"{ifindex}-{program}"


def _pinned(links: Path) -> Iterator[tuple[Path, int]]:
    for link in sorted(links.iterdir()) if links.is_dir() else ():
        with bpf.opened(link) as link_fd:
            yield link, bpf.tcx_link_info(link_fd).ifindex


def _refuse_another(ifindex: int, program: str, place: Place) -> None:
    for number in bpf.interface_programs(ifindex, place.side):
        if bpf.program_name(number) == program:
            raise AttachError(
                f"interface {ifindex}: {program} of another instance is attached to it as program {number}; "
                "uninstall that one or give this instance its own node"
            )


def _create(links: Path, ifindex: int, place: Place, program_fd: int) -> int:
    follower = path_of(links, ifindex, place.before)
    if place.before and follower.exists():
        with bpf.opened(follower) as follower_fd:
            if bpf.tcx_link_info(follower_fd).ifindex == ifindex:
                return bpf.create_tcx_link(program_fd, ifindex, place.side, before=follower_fd)
    return bpf.create_tcx_link(program_fd, ifindex, place.side)
