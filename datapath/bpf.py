"""The bpf(2) system call through ctypes: what the daemon needs on pinned objects, without bcc's 100 MB.

Every function raises OSError as the kernel refuses. Structures follow `union bpf_attr` of linux/bpf.h.
"""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_NUMBER = {"x86_64": 321, "aarch64": 280}.get(platform.machine())
_libc = ctypes.CDLL(None, use_errno=True)

MAP_CREATE = 0
MAP_LOOKUP_ELEM = 1
MAP_UPDATE_ELEM = 2
MAP_DELETE_ELEM = 3
MAP_GET_NEXT_KEY = 4
OBJ_PIN = 6
OBJ_GET = 7
PROG_GET_FD_BY_ID = 13
MAP_GET_FD_BY_ID = 14
OBJ_GET_INFO_BY_FD = 15
PROG_QUERY = 16
MAP_LOOKUP_BATCH = 24
MAP_UPDATE_BATCH = 26
MAP_DELETE_BATCH = 27
LINK_CREATE = 28
LINK_UPDATE = 29
LINK_DETACH = 34

_QUERY_EFFECTIVE = 1
_BEFORE, _IS_LINK = 1 << 3, 1 << 13
_u32 = ctypes.c_uint32
_u64 = ctypes.c_uint64


class ElementAttr(ctypes.Structure):
    _fields_ = (("map_fd", _u32), ("pad", _u32), ("key", _u64), ("value", _u64), ("flags", _u64))


class _MapCreateAttr(ctypes.Structure):
    _fields_ = (
        ("map_type", _u32),
        ("key_size", _u32),
        ("value_size", _u32),
        ("max_entries", _u32),
        ("map_flags", _u32),
        ("inner_map_fd", _u32),
        ("numa_node", _u32),
        ("map_name", ctypes.c_char * 16),
    )


class _IdAttr(ctypes.Structure):
    _fields_ = (("id", _u32), ("next_id", _u32), ("open_flags", _u32))


class _QueryAttr(ctypes.Structure):
    _fields_ = (
        ("target_fd", _u32),
        ("attach_type", _u32),
        ("query_flags", _u32),
        ("attach_flags", _u32),
        ("prog_ids", _u64),
        ("prog_cnt", _u32),
        ("pad", _u32),
        ("prog_attach_flags", _u64),
        ("link_ids", _u64),
        ("link_attach_flags", _u64),
        ("revision", _u64),
    )


class BatchAttr(ctypes.Structure):
    _fields_ = (
        ("in_batch", _u64),
        ("out_batch", _u64),
        ("keys", _u64),
        ("values", _u64),
        ("count", _u32),
        ("map_fd", _u32),
        ("elem_flags", _u64),
        ("flags", _u64),
    )


class _ObjectAttr(ctypes.Structure):
    _fields_ = (("pathname", _u64), ("bpf_fd", _u32), ("file_flags", _u32))


class _InfoAttr(ctypes.Structure):
    _fields_ = (("bpf_fd", _u32), ("info_len", _u32), ("info", _u64))


class _LinkCreateAttr(ctypes.Structure):
    _fields_ = (("prog_fd", _u32), ("target_fd", _u32), ("attach_type", _u32), ("flags", _u32))


class _TcxLinkAttr(ctypes.Structure):
    _fields_ = (
        ("prog_fd", _u32),
        ("target_ifindex", _u32),
        ("attach_type", _u32),
        ("flags", _u32),
        ("relative_fd", _u32),
        ("pad", _u32),
        ("expected_revision", _u64),
    )


class _LinkUpdateAttr(ctypes.Structure):
    _fields_ = (("link_fd", _u32), ("new_prog_fd", _u32), ("flags", _u32), ("old_prog_fd", _u32))


class _LinkDetachAttr(ctypes.Structure):
    _fields_ = (("link_fd", _u32),)


class _MapInfo(ctypes.Structure):
    _fields_ = (
        ("type", _u32),
        ("id", _u32),
        ("key_size", _u32),
        ("value_size", _u32),
        ("max_entries", _u32),
        ("map_flags", _u32),
    )


class _ProgramInfo(ctypes.Structure):
    _fields_ = (
        ("type", _u32),
        ("id", _u32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_len", _u32),
        ("xlated_len", _u32),
        ("jited", _u64),
        ("xlated", _u64),
        ("load_time", _u64),
        ("uid", _u32),
        ("nr_map_ids", _u32),
        ("map_ids", _u64),
        ("name", ctypes.c_char * 16),
    )


class _LinkInfo(ctypes.Structure):
    _fields_ = (
        ("type", _u32),
        ("id", _u32),
        ("prog_id", _u32),
        ("pad", _u32),
        ("cgroup_id", _u64),
        ("attach_type", _u32),
        ("pad2", _u32),
    )


class _TcxLinkInfo(ctypes.Structure):
    _fields_ = (
        ("type", _u32),
        ("id", _u32),
        ("prog_id", _u32),
        ("pad", _u32),
        ("ifindex", _u32),
        ("attach_type", _u32),
    )


@dataclass(frozen=True, slots=True)
class MapInfo:
    """What the kernel knows of a map; `kind` is enum bpf_map_type."""

    kind: int
    key_size: int
    value_size: int
    max_entries: int


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """What a cgroup link holds; `cgroup_id` is 0 once the cgroup is gone."""

    program_id: int
    cgroup_id: int
    attach_type: int


@dataclass(frozen=True, slots=True)
class TcxLinkInfo:
    """What a TCX link holds; `ifindex` is 0 once the interface is gone."""

    program_id: int
    ifindex: int


def call(command: int, attr: ctypes.Structure) -> int:
    """bpf(command, attr). Raises OSError."""
    if _NUMBER is None:
        raise NotImplementedError(f"bpf(2) has no known number on {platform.machine()}")
    result: int = _libc.syscall(_NUMBER, command, ctypes.byref(attr), ctypes.sizeof(attr))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def address_of(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def get_object(path: Path) -> int:
    """A new file descriptor of a pinned map, program or link. Raises OSError naming the path."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    try:
        return call(OBJ_GET, _ObjectAttr(pathname=address_of(name)))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """The pinned object's file descriptor, closed at the end."""
    fd = get_object(path)
    try:
        yield fd
    finally:
        os.close(fd)


def pin_object(fd: int, path: Path) -> None:
    """Raises OSError naming the path."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    try:
        call(OBJ_PIN, _ObjectAttr(pathname=address_of(name), bpf_fd=fd))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _info(fd: int, info: ctypes.Structure) -> None:
    length = ctypes.sizeof(info)
    call(OBJ_GET_INFO_BY_FD, _InfoAttr(bpf_fd=fd, info_len=length, info=ctypes.addressof(info)))


def map_info(fd: int) -> MapInfo:
    info = _MapInfo()
    _info(fd, info)
    return MapInfo(info.type, info.key_size, info.value_size, info.max_entries)


def create_map(kind: int, *, key_size: int, value_size: int, max_entries: int, name: bytes) -> int:
    """A new map's descriptor."""
    attr = _MapCreateAttr(
        map_type=kind, key_size=key_size, value_size=value_size, max_entries=max_entries, map_name=name
    )
    return call(MAP_CREATE, attr)


def open_map(map_id: int) -> int:
    """A descriptor of the map with this number."""
    return call(MAP_GET_FD_BY_ID, _IdAttr(id=map_id))


def program_name(number: int) -> str:
    """The name of the program with this number, as the kernel keeps it (15 characters)."""
    fd = call(PROG_GET_FD_BY_ID, _IdAttr(id=number))
    try:
        info = _ProgramInfo()
        _info(fd, info)
        return bytes(info.name).decode(errors="replace")
    finally:
        os.close(fd)


def attached_programs(cgroup_fd: int, attach_type: int, *, most: int = 64) -> list[int]:
    """The numbers of the programs that run at a hook of a cgroup, those of the cgroups above it too."""
    return _query(cgroup_fd, attach_type, _QUERY_EFFECTIVE, most)


def interface_programs(ifindex: int, attach_type: int, *, most: int = 64) -> list[int]:
    """The numbers of the programs that TCX runs on a side of an interface, in their order."""
    return _query(ifindex, attach_type, 0, most)


def _query(target: int, attach_type: int, flags: int, most: int) -> list[int]:
    ids = (_u32 * most)()
    attr = _QueryAttr(
        target_fd=target,
        attach_type=attach_type,
        query_flags=flags,
        prog_ids=ctypes.addressof(ids),
        prog_cnt=most,
    )
    call(PROG_QUERY, attr)
    return list(ids[: attr.prog_cnt])


def program_id(fd: int) -> int:
    info = _ProgramInfo()
    _info(fd, info)
    return int(info.id)


def link_info(fd: int) -> LinkInfo:
    info = _LinkInfo()
    _info(fd, info)
    return LinkInfo(info.prog_id, info.cgroup_id, info.attach_type)


def create_cgroup_link(program_fd: int, cgroup_fd: int, attach_type: int) -> int:
    """Attach beside whatever is attached; lives as long as the returned descriptor or its pin."""
    attr = _LinkCreateAttr(prog_fd=program_fd, target_fd=cgroup_fd, attach_type=attach_type)
    return call(LINK_CREATE, attr)


def tcx_link_info(fd: int) -> TcxLinkInfo:
    info = _TcxLinkInfo()
    _info(fd, info)
    return TcxLinkInfo(info.prog_id, info.ifindex)


def create_tcx_link(program_fd: int, ifindex: int, attach_type: int, *, before: int | None = None) -> int:
    """Attach after whatever is attached, or right before the link with the descriptor `before`; lives as long as the
    returned descriptor or its pin.
    """
    attr = _TcxLinkAttr(prog_fd=program_fd, target_ifindex=ifindex, attach_type=attach_type)
    if before is not None:
        attr.flags, attr.relative_fd = _BEFORE | _IS_LINK, before
    return call(LINK_CREATE, attr)


def update_link(link_fd: int, program_fd: int) -> None:
    """Replace the link's program atomically."""
    call(LINK_UPDATE, _LinkUpdateAttr(link_fd=link_fd, new_prog_fd=program_fd))


def detach_link(link_fd: int) -> None:
    """Take the link's program off its hook now, whoever still holds the link."""
    call(LINK_DETACH, _LinkDetachAttr(link_fd=link_fd))
