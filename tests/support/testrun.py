"""Runs a loaded program on a packet in the kernel, without traffic (BPF_PROG_TEST_RUN)."""

import ctypes
import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from datapath import bpf

PROG_TEST_RUN = 10
SHOT, UNSPEC = 2, -1
_SKB_SIZE, _IFINDEX_AT = 192, 40  # struct __sk_buff
_ETH4, _ETH6 = bytes(12) + b"\x08\x00", bytes(12) + b"\x86\xdd"


class _Attr(ctypes.Structure):
    _fields_ = (
        ("prog_fd", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("data_in", ctypes.c_uint64),
        ("data_out", ctypes.c_uint64),
        ("repeat", ctypes.c_uint32),
        ("duration", ctypes.c_uint32),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_uint64),
        ("ctx_out", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


def run(program: Path, frame: bytes, *, ifindex: int, repeat: int = 1) -> tuple[int, int]:
    """What a tc program returns, and nanoseconds per run. In the network namespace of the calling thread."""
    data = ctypes.create_string_buffer(frame, len(frame))
    context = ctypes.create_string_buffer(_SKB_SIZE)
    struct.pack_into("=I", context, _IFINDEX_AT, ifindex)
    with bpf.opened(program) as fd:
        attr = _Attr(
            prog_fd=fd,
            data_size_in=len(frame),
            data_in=ctypes.addressof(data),
            repeat=repeat,
            ctx_size_in=_SKB_SIZE,
            ctx_in=ctypes.addressof(context),
        )
        bpf.call(PROG_TEST_RUN, attr)
    return ctypes.c_int32(attr.retval).value, attr.duration


def frame(
    source: str | IPv4Address | IPv6Address,
    destination: str | IPv4Address | IPv6Address,
    protocol: str,
    port: int,
    *,
    source_port: int = 40000,
    flags: int = 0x02,
) -> bytes:
    """An Ethernet frame with a first packet; `port` is the type for ICMP, whose echo identifier is `source_port`."""
    l4 = _l4(protocol, port, source_port, flags).ljust(64, b"\0")
    number = {"TCP": 6, "UDP": 17, "SCTP": 132, "ICMP": 1, "ICMPv6": 58}[protocol]
    if ":" in str(source):
        ends = socket.inet_pton(socket.AF_INET6, str(source)) + socket.inet_pton(socket.AF_INET6, str(destination))
        return _ETH6 + struct.pack("!IHBB", 6 << 28, len(l4), number, 64) + ends + l4
    ends = socket.inet_aton(str(source)) + socket.inet_aton(str(destination))
    return _ETH4 + struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(l4), 0, 0, 64, number, 0) + ends + l4


def _l4(protocol: str, port: int, source_port: int, flags: int) -> bytes:
    if protocol.startswith("ICMP"):
        return struct.pack("!BBHHH", port, 0, 0, source_port, 1)
    if protocol == "TCP":
        return struct.pack("!HHIIBBHHH", source_port, port, 1, 0, 0x50, flags, 1024, 0, 0)
    return struct.pack("!HHHH", source_port, port, 8, 0)


def icmp_error(router: str, about: bytes) -> bytes:
    """An ICMP "fragmentation needed" of IPv4 that quotes the packet of a frame, to its sender."""
    quoted = about[14 : 14 + 28]
    l4 = struct.pack("!BBHHH", 3, 4, 0, 0, 1400) + quoted
    ends = socket.inet_aton(router) + quoted[12:16]
    return _ETH4 + struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(l4), 0, 0, 64, 1, 0) + ends + l4
