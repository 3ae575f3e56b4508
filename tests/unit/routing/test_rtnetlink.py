"""Messages of routes as the kernel makes them (rtnetlink(7)), taken apart."""

import struct
from ipaddress import ip_address, ip_network

import pytest

from routing.rtnetlink import (
    KernelRoute,
    attributes,
    delete_request,
    messages,
    parse_route,
    replace_request,
    way_request,
)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def body(*several: bytes, family: int = 2, bits: int = 24, table: int = 254, protocol: int = 12) -> bytes:
    return struct.pack("=8BI", family, bits, 0, 0, table, protocol, 0, 1, 0) + b"".join(several)


def next_hop(ifindex: int, gateway: str, *, flags: int = 0) -> bytes:
    inside = attribute(5, ip_address(gateway).packed)
    return struct.pack("=HBBi", 8 + len(inside), flags, 0, ifindex) + inside


DST, OIF = attribute(1, bytes((192, 0, 2, 0))), attribute(4, struct.pack("=I", 7))


def test_a_route_with_all_that_is_asked_for() -> None:
    gateway, source = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 9))
    metrics = attribute(8 | 0x8000, attribute(2, struct.pack("=I", 1400)))
    more = (attribute(15, struct.pack("=I", 1000)), attribute(5, gateway), attribute(7, source), metrics)
    found = parse_route(body(DST, OIF, *more, table=252))
    assert found == KernelRoute(4, 24, 1000, 12, 1, bytes((192, 0, 2, 0)), gateway, source, 1400, (7,))
    assert found.prefix == ip_network("192.0.2.0/24")


def test_a_default_route_has_no_destination() -> None:
    found = parse_route(body(OIF, family=10, bits=0))
    assert found is not None
    assert found.prefix == ip_network("::/0")


def test_of_several_next_hops_the_first_that_lives() -> None:
    hops = next_hop(3, "192.0.2.1", flags=1) + next_hop(4, "192.0.2.2", flags=16) + next_hop(5, "192.0.2.3")
    found = parse_route(body(DST, attribute(9, hops)))
    assert found is not None
    assert (found.gateway, found.devices[0], set(found.devices)) == (bytes((192, 0, 2, 3)), 5, {3, 4, 5})


def test_a_gateway_of_another_family() -> None:
    via = attribute(18, struct.pack("=H", 10) + ip_address("fe80::1").packed)
    found = parse_route(body(DST, OIF, via))
    assert found is not None
    assert ip_address(found.gateway) == ip_address("fe80::1")


@pytest.mark.parametrize("text", [b"", bytes(11), body(family=28), struct.pack("=HH", 2, 1)])
def test_what_is_no_route(text: bytes) -> None:
    assert parse_route(text) is None


def test_what_is_cut_short_ends() -> None:
    assert list(messages(bytes(40))) == []
    assert list(attributes(b"\1\0\1\0", 0)) == []


def test_questions_are_numbered() -> None:
    several = way_request(ip_address("192.0.2.1"), 7) + way_request(ip_address("fd00::1"), 8, match=True)
    assert [(kind, number) for kind, _, number, _ in messages(several)] == [(26, 7), (26, 8)]


@pytest.mark.parametrize(
    ("prefix", "gateway", "source", "mtu", "table"),
    [
        ("20.0.0.0/24", "192.0.2.1", "192.0.2.7", 1400, 109),
        ("20.0.0.0/24", "", "", 0, 1 << 20),
        ("fd00:20::/64", "fd00::1", "fd00::7", 1280, 254),
    ],
)
def test_a_route_is_written_as_it_is_read(prefix: str, gateway: str, source: str, mtu: int, table: int) -> None:
    network = ip_network(prefix)
    first, last = (ip_address(text).packed if text else b"" for text in (gateway, source))
    packed = network.network_address.packed
    route = KernelRoute(network.version, network.prefixlen, table, 109, 1, packed, first, last, mtu, (5,))
    ((kind, _, number, text),) = messages(replace_request(route, 3, priority=7))
    assert (kind, number, parse_route(text)) == (24, 3, route)
    assert dict(attributes(text, 12))[6] == struct.pack("=I", 7)
    ((kind, _, number, text),) = messages(delete_request(route, 4))
    left = KernelRoute(network.version, network.prefixlen, table, 109, 1, packed, b"", b"", 0, ())
    assert (kind, number, parse_route(text)) == (25, 4, left)
