"""The node's devices: which one carries tunnel packets, its MTU, and which there are. In this process' network
namespace.
"""

import fcntl
import socket
import struct
import sys
from pathlib import Path

SIOCGIFMTU = 0x8921
SO_NETNS_COOKIE = 71
DEFAULT_MTU = 1500
_EVENT_GROUPS = (0x1, 0x10, 0x40, 0x80, 0x100, 0x400, 1 << 18, 1 << 31)  # links; addresses, routes, rules; next hops


def default_device() -> str:
    """The device of the IPv4 default route (proc(5)), "" without one."""
    for line in Path("/proc/self/net/route").read_text().splitlines()[1:]:
        device, destination, *_, mask = line.split()[:8]
        if destination == mask == "00000000":
            return device
    return ""


def device_mtu(name: str) -> int:
    """Raises OSError if there is no such device."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        answer = fcntl.ioctl(probe, SIOCGIFMTU, struct.pack("16sI12x", name.encode()[:15], 0))
    return int(struct.unpack("16sI12x", answer)[1])


def underlay_mtu(device: str) -> int:
    """Of the device, or of the default route's. Raises OSError."""
    name = device or default_device()
    return device_mtu(name) if name else DEFAULT_MTU


def netns_cookie() -> int:
    """The number by which the kernel's programs know this network namespace (socket(7), Linux 5.14); 0 if older."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            return int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), sys.byteorder)
        except OSError:
            return 0


def open_events() -> socket.socket:
    """Becomes readable when a device, an address, a route, a rule or a next hop comes, goes or changes (rtnetlink(7)).

    Raises OSError.
    """
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    events.bind((0, sum(_EVENT_GROUPS)))
    return events


def interfaces() -> frozenset[tuple[int, str]]:
    """Number and name of every interface: changes when one comes, goes or is made anew."""
    return frozenset(socket.if_nameindex())
