"""Frames as they pass an interface, and what is inside a VXLAN packet."""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from tests.support.netns import Namespace

_ETH_P_ALL = 0x0003
_ETH_P_IP, _ETH_P_IPV6 = 0x0800, 0x86DD
_UDP = 17


@dataclass(frozen=True)
class Tunnelled:
    """One VXLAN packet: outer and inner addresses, VNI, and the inner IP packet."""

    outer: tuple[IPv4Address, IPv4Address]
    vni: int
    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    packet: bytes

    @property
    def ttl(self) -> int:
        return self.packet[8] if self.packet[0] >> 4 == 4 else self.packet[7]


class Capture:
    """Reads an AF_PACKET socket."""

    def __init__(self, reader: socket.socket) -> None:
        self._reader = reader

    def wait(self, wanted: Callable[[bytes], bool], *, deadline_s: float = 5) -> bytes:
        """The first frame that fits. Raises TimeoutError."""
        self._reader.settimeout(deadline_s)
        while True:
            frame = self._reader.recv(65536)
            if wanted(frame):
                return frame

    def seen(self) -> list[bytes]:
        """The frames that have arrived and were not read yet."""
        self._reader.setblocking(False)
        frames: list[bytes] = []
        while True:
            try:
                frames.append(self._reader.recv(65536))
            except BlockingIOError:
                return frames


@contextmanager
def capturing(namespace: Namespace, device: str) -> Iterator[Capture]:
    """Capture on a device from now on."""

    def opened() -> socket.socket:
        reader = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 20)
        reader.bind((device, _ETH_P_ALL))
        return reader

    with namespace.call(opened) as reader:
        yield Capture(reader)


def tunnelled(frame: bytes, port: int) -> Tunnelled | None:
    """What an IPv4 VXLAN frame to UDP `port` carries; None for another frame."""
    if struct.unpack_from("!H", frame, 12)[0] != _ETH_P_IP or frame[23] != _UDP:
        return None
    if struct.unpack_from("!H", frame, 36)[0] != port:
        return None
    outer = IPv4Address(frame[26:30]), IPv4Address(frame[30:34])
    vni = int.from_bytes(frame[46:49], "big")
    kind = struct.unpack_from("!H", frame, 62)[0]
    packet = frame[64:]
    if kind == _ETH_P_IP:
        return Tunnelled(outer, vni, IPv4Address(packet[12:16]), IPv4Address(packet[16:20]), packet)
    if kind == _ETH_P_IPV6:
        return Tunnelled(outer, vni, IPv6Address(packet[8:24]), IPv6Address(packet[24:40]), packet)
    return None


def is_fragment(frame: bytes) -> bool:
    """Whether the frame is a piece of a larger IPv4 packet."""
    kind = int.from_bytes(frame[12:14], "big")
    fragment = int.from_bytes(frame[20:22], "big") & 0x3FFF
    return kind == _ETH_P_IP and fragment != 0
