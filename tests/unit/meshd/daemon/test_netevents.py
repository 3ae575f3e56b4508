"""Datagrams as the kernel makes them: header, body, padding, several in one."""

import struct

import pytest

from meshd.daemon.netevents import takes_routes

OURS, DEVICES = 109, {3, 9}


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body + bytes(-len(body) % 4)


def link(kind: int, ifindex: int) -> bytes:
    return message(kind, struct.pack("=BxHiII", 0, 1, ifindex, 0, 0) + b"attrs")


def route(kind: int, protocol: int) -> bytes:
    return message(kind, struct.pack("=8BI", 2, 24, 0, 0, 254, protocol, 0, 1, 0) + bytes(8))


@pytest.mark.parametrize(
    ("datagram", "expected"),
    [
        (link(16, 9), True),
        (link(17, 3), True),
        (link(16, 4), False),
        (route(25, OURS), True),
        (route(25, 12), False),
        (route(24, OURS), False),
        (link(16, 4) + route(24, OURS) + link(16, 3), True),
        (link(16, 4) + route(24, 12), False),
        (b"", False),
        (b"\0" * 64, False),
    ],
)
def test_what_takes_routes(datagram: bytes, expected: bool) -> None:
    assert takes_routes(datagram, devices=DEVICES, protocol=OURS) is expected
