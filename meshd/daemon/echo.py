"""The probe of the direct path to a node: an echo request (RFC 792, RFC 4443) to its address, which its kernel answers.
Pure but for the socket.
"""

import socket
import struct

_HEADER = struct.Struct("!BBHHH")
_BODY = struct.Struct("!QI")
_TYPES = {4: (8, 0), 6: (128, 129)}  # request, reply
# raw(7): ICMP_FILTER; RFC 3542: ICMP6_FILTER. A set bit is a type that is kept away.
_ONLY_REPLIES = {
    4: (255, 1, struct.pack("=I", 0xFFFFFFFF ^ 1 << 0)),
    6: (
        socket.IPPROTO_ICMPV6,
        1,
        struct.pack("=8I", *(0xFFFFFFFF ^ (1 << 1 if word == 4 else 0) for word in range(8))),
    ),
}
_LEAST = _HEADER.size + _BODY.size


def open_echo(version: int) -> socket.socket:
    """A socket that hears echo replies only. Raises OSError if there is no right to have one."""
    family, protocol = (
        (socket.AF_INET, socket.IPPROTO_ICMP) if version == 4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
    )
    made = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    made.setsockopt(*_ONLY_REPLIES[version])
    return made


def encode_echo(version: int, number: int, cookie: int, *, size: int = 0) -> bytes:
    """A request of `size` bytes at least, without the IP header. `cookie` is 64 bits that only the sender knows."""
    words = _HEADER.pack(_TYPES[version][0], 0, 0, cookie & 0xFFFF, number & 0xFFFF) + _BODY.pack(cookie, number)
    request = words.ljust(size + size % 2, b"\0") if size else words
    checksum = _checksum(request) if version == 4 else 0  # that of ICMPv6 is the kernel's
    return request[:2] + checksum.to_bytes(2, "big") + request[4 : max(size, _LEAST)]


def decode_echo(version: int, packet: bytes, cookie: int) -> int | None:
    """The number of the request that this answers, None if it is none of ours. `packet` as the socket gives it: of IPv4
    with its header.
    """
    start = (packet[0] & 0x0F) * 4 if version == 4 and packet else 0
    if len(packet) < start + _LEAST or packet[start] != _TYPES[version][1]:
        return None
    seen, number = _BODY.unpack_from(packet, start + _HEADER.size)
    return int(number) if seen == cookie else None


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
