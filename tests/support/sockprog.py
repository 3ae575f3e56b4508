"""A program for a socket hook, under any name, that lets everything pass: what another load balancer looks like."""

import ctypes

from datapath import bpf

_PROG_LOAD = 5
_CGROUP_SOCK_ADDR = 18
_RETURN_1 = bytes.fromhex("b7000000010000009500000000000000")


class _LoadAttr(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
        ("instructions", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log", ctypes.c_uint64 * 2),
        ("version", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("name", ctypes.c_char * 16),
        ("ifindex", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
    )


def load_program(name: str, attach_type: int) -> int:
    """Its descriptor. Raises OSError."""
    code, gpl = ctypes.create_string_buffer(_RETURN_1, len(_RETURN_1)), ctypes.create_string_buffer(b"GPL")
    attr = _LoadAttr(
        kind=_CGROUP_SOCK_ADDR,
        count=len(_RETURN_1) // 8,
        instructions=bpf.address_of(code),
        license=bpf.address_of(gpl),
        name=name.encode(),
        attach_type=attach_type,
    )
    return bpf.call(_PROG_LOAD, attr)
