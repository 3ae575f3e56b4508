"""News of routers as bytes; real ones are in tests/root/test_routing_narrowed.py."""

import pytest

from meshd.daemon.pathnews import is_too_big

IPV4_HEADER = bytes([0x46]) + bytes(23)  # with an option


@pytest.mark.parametrize(
    ("version", "packet", "expected"),
    [
        (4, IPV4_HEADER + b"\x03\x04", True),
        (4, IPV4_HEADER + b"\x03\x03", False),  # port unreachable
        (4, IPV4_HEADER + b"\x0b\x00", False),
        (4, IPV4_HEADER, False),
        (4, b"", False),
        (6, b"\x02\x00\x00\x00", True),
        (6, b"\x01\x00", False),
        (6, b"", False),
    ],
)
def test_only_that_a_packet_was_too_big_is_news(version: int, packet: bytes, expected: bool) -> None:
    assert is_too_big(version, packet) is expected
