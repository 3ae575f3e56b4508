"""The socket hooks of a cgroup: attached by pinned links, which exclude nobody and are replaced atomically."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from datapath import bpf
from datapath.pins import Programs

# Program name = hook name; the numbers are enum bpf_attach_type.
HOOKS: Mapping[str, int] = MappingProxyType(
    {
        "connect4": 10,
        "connect6": 11,
        "sendmsg4": 14,
        "sendmsg6": 15,
        "recvmsg4": 19,
        "recvmsg6": 20,
        "getpeername4": 29,
        "getpeername6": 30,
    }
)


class HookError(Exception):
    """A hook could not be attached; the text says why and what to do."""


def ensure_hooks(links: Path, programs: Programs, cgroup: Path) -> tuple[str, ...]:
    """Attach every hook to `cgroup`; returns the names of those that were written. Raises HookError."""
    try:
        cgroup_fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise HookError(f"cgroup {cgroup}: {error.strerror}; create it, or give --cgroup another one") from error
    try:
        cgroup_id = os.fstat(cgroup_fd).st_ino
        return tuple(
            name
            for name, attach_type in HOOKS.items()
            if _ensure_hook(links / name, programs.path(name), attach_type, cgroup_fd, cgroup_id, cgroup)
        )
    finally:
        os.close(cgroup_fd)


def _ensure_hook(link: Path, program: Path, attach_type: int, cgroup_fd: int, cgroup_id: int, cgroup: Path) -> bool:
    with bpf.opened(program) as program_fd:
        if link.exists():
            with bpf.opened(link) as link_fd:
                info = bpf.link_info(link_fd)
                if info.cgroup_id == cgroup_id:
                    if info.program_id == bpf.program_id(program_fd):
                        return False
                    bpf.update_link(link_fd, program_fd)
                    return True
        _attach(link, program_fd, attach_type, cgroup_fd, cgroup)
        return True


def _attach(link: Path, program_fd: int, attach_type: int, cgroup_fd: int, cgroup: Path) -> None:
    try:
        link_fd = bpf.create_cgroup_link(program_fd, cgroup_fd, attach_type)
    except OSError as error:
        raise HookError(f"{link.name} on {cgroup}: {error.strerror}; {_remedy(error.errno)}") from error
    try:
        # A link that is pinned here belongs to a cgroup that is gone or no longer asked for.
        link.unlink(missing_ok=True)
        bpf.pin_object(link_fd, link)
    finally:
        os.close(link_fd)


def _remedy(code: int | None) -> str:
    if code == errno.EPERM:
        return "another program holds this hook exclusively on it or above: 'bpftool cgroup tree' names it"
    if code == errno.EBADF:
        return "this is no cgroup v2 folder: /proc/mounts says where cgroup2 is"
    return "the kernel must have CONFIG_CGROUP_BPF and be 5.8 or newer"


def detach_hooks(links: Path) -> tuple[str, ...]:
    """Take every link pinned in `links` off its cgroup; returns their names."""
    names = sorted(path.name for path in links.iterdir()) if links.is_dir() else []
    for name in names:
        with bpf.opened(links / name) as link_fd:
            bpf.detach_link(link_fd)
        (links / name).unlink()
    return tuple(names)
