"""Datagrams as the kernel makes them: header, body, padding, several in one."""

import struct
from ipaddress import ip_address, ip_network

import pytest

from meshd.daemon.netevents import Concern, Networks, is_own, takes_routes

OURS, DEVICES, PREFIXES = 109, {3, 9}, {b"20.0.0.0/24", b"fd00:20::/64"}


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body + bytes(-len(body) % 4)


def link(kind: int, ifindex: int) -> bytes:
    return message(kind, struct.pack("=BxHiII", 0, 1, ifindex, 0, 0) + b"attrs")


def route(kind: int, protocol: int, destination: str = "198.51.100.0/24") -> bytes:
    prefix = ip_network(destination)
    family = 2 if prefix.version == 4 else 10
    body = struct.pack("=8BI", family, prefix.prefixlen, 0, 0, 254, protocol, 0, 1, 0)
    packed = prefix.network_address.packed
    oif, dst = struct.pack("=HHI", 8, 4, 3), struct.pack("=HH", 4 + len(packed), 1) + packed
    return message(kind, body + oif + (dst if prefix.prefixlen else b""))


@pytest.mark.parametrize(
    ("datagram", "expected"),
    [
        (link(16, 9), True),
        (link(17, 3), True),
        (link(16, 4), False),
        (route(25, OURS, "20.0.0.0/24"), True),
        (route(25, OURS), False),
        (route(25, 12), False),
        (route(24, OURS), False),
        (link(16, 4) + route(24, OURS) + link(16, 3), True),
        (link(16, 4) + route(24, 12), False),
        (route(24, 12, "20.0.0.0/24"), True),
        (route(25, 12, "fd00:20::/64"), True),
        (route(24, 12, "20.0.0.0/16"), False),
        (route(24, OURS, "20.0.0.0/24"), False),
        (route(24, 12, "0.0.0.0/0"), False),
        (route(24, 12, "20.0.0.0/24")[:30], False),
        (message(33, bytes(12)), True),
        (message(32, bytes(12)), False),
        (b"", False),
        (b"\0" * 64, False),
    ],
)
def test_what_takes_routes(datagram: bytes, expected: bool) -> None:
    assert takes_routes(datagram, devices=DEVICES, protocol=OURS, is_wanted=PREFIXES.__contains__) is expected


@pytest.mark.parametrize(
    ("datagram", "expected"),
    [
        (route(24, OURS), True),
        (route(25, OURS) + route(24, OURS), True),
        (route(24, OURS) + route(24, 12), False),
        (link(16, 9), False),
        (message(20, bytes(8)) + route(24, OURS), False),
    ],
)
def test_what_we_wrote_ourselves_is_no_reason_to_ask_again(datagram: bytes, expected: bool) -> None:
    assert is_own(datagram, protocol=OURS) is expected


def concern(datagram: bytes) -> Concern:
    made = Concern()
    made.take(datagram, protocol=OURS)
    return made


def test_an_event_concerns_what_it_may_have_moved() -> None:
    address = message(21, struct.pack("=4BI", 2, 24, 0, 0, 7) + struct.pack("=HH4s", 8, 2, bytes((192, 0, 2, 1))))
    several = route(24, 12) + route(25, OURS, "20.0.0.0/24") + route(25, 4, "fd00:20::/64") + link(16, 9) + address
    assert concern(several) == Concern(
        networks={ip_network("198.51.100.0/24"), ip_network("fd00:20::/64")},
        devices={7, 9},
        sources={ip_address("192.0.2.1")},
        protocols={12, 4},
    )


@pytest.mark.parametrize("kind", [32, 33, 104, 105])
def test_a_rule_or_a_next_hop_concerns_everything(kind: int) -> None:
    assert concern(message(kind, bytes(12))).everything


def test_an_address_in_many_networks() -> None:
    networks = Networks.of(ip_network(text) for text in ("10.0.0.0/8", "192.0.2.64/26", "192.0.2.9/32", "fd00::/16"))
    inside = ("10.1.2.3", "192.0.2.64", "192.0.2.127", "192.0.2.9", "fd00:1::1")
    outside = ("11.0.0.0", "192.0.2.63", "192.0.2.128", "192.0.2.8", "fd01::1", "::10.1.2.3")
    assert [ip_address(text) in networks for text in (*inside, *outside)] == [True] * 5 + [False] * 6
    assert ip_address("192.0.2.1") in Networks.of([ip_network("0.0.0.0/0")])
