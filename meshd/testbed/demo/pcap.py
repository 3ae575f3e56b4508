"""Reads a capture of the underlay: VXLAN packets with both headers, and fragments. Pure.

Only what the demo must prove: Ethernet, IPv4, UDP, VXLAN (RFC 7348), an Ethernet frame with IPv4 inside.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

VXLAN_PORT = 8473
_MAGIC = 0xA1B2C3D4
_MAGIC_NS = 0xA1B23C4D
_ETHERNET = 1
_ETHERTYPE_IPV4 = 0x0800
_UDP = 17
_ETH_LEN = 14


class BadCapture(ValueError):
    """Not a capture that this reads; str(error) says why."""


@dataclass(frozen=True, slots=True)
class Tunnelled:
    """A packet in the tunnel: between which nodes, with which network number, between which pods."""

    outer: tuple[IPv4Address, IPv4Address]
    vni: int
    inner: tuple[IPv4Address, IPv4Address]


@dataclass(frozen=True, slots=True)
class Frames:
    """What a capture holds."""

    tunnelled: tuple[Tunnelled, ...]
    fragments: int
    """Outer IPv4 packets that are a part of another one."""


def parse_pcap(content: bytes) -> Frames:
    """A file of tcpdump's. A last frame that is not complete yet is left out. Raises BadCapture."""
    tunnelled, fragments = [], 0
    for frame in _frames(content):
        ip = _ipv4(frame)
        if ip is None:
            continue
        fragments += ip.is_fragment
        packet = _tunnelled(ip)
        if packet:
            tunnelled.append(packet)
    return Frames(tuple(tunnelled), fragments)


def _frames(content: bytes) -> Iterator[bytes]:
    if len(content) < 24:
        raise BadCapture(f"a capture begins with 24 bytes, here are {len(content)}")
    order = next((o for o in "<>" if struct.unpack_from(f"{o}I", content)[0] in (_MAGIC, _MAGIC_NS)), None)
    if order is None:
        raise BadCapture("not a capture in tcpdump's format")
    if struct.unpack_from(f"{order}I", content, 20)[0] != _ETHERNET:
        raise BadCapture("not a capture of an Ethernet device")
    at = 24
    while at + 16 <= len(content):
        (length,) = struct.unpack_from(f"{order}I", content, at + 8)
        if at + 16 + length > len(content):
            return
        yield content[at + 16 : at + 16 + length]
        at += 16 + length


@dataclass(frozen=True, slots=True)
class _Ipv4:
    ends: tuple[IPv4Address, IPv4Address]
    protocol: int
    is_fragment: bool
    payload: bytes


def _ipv4(frame: bytes) -> _Ipv4 | None:
    if len(frame) < _ETH_LEN + 20 or int.from_bytes(frame[12:14]) != _ETHERTYPE_IPV4:
        return None
    header = frame[_ETH_LEN:]
    return _Ipv4(
        ends=(IPv4Address(header[12:16]), IPv4Address(header[16:20])),
        protocol=header[9],
        is_fragment=bool(int.from_bytes(header[6:8]) & 0x3FFF),  # more fragments, or an offset
        payload=header[4 * (header[0] & 0x0F) :],
    )


def _tunnelled(ip: _Ipv4) -> Tunnelled | None:
    if ip.protocol != _UDP or len(ip.payload) < 16 or int.from_bytes(ip.payload[2:4]) != VXLAN_PORT:
        return None
    inner = _ipv4(ip.payload[16:])
    if inner is None:
        return None
    return Tunnelled(ip.ends, int.from_bytes(ip.payload[12:15]), inner.ends)
