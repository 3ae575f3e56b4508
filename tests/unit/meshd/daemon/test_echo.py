"""Echo requests and replies as bytes; the kernel's answers are in tests/root/test_daemon_probes.py."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.daemon.echo import decode_echo, encode_echo

COOKIE = 0x1122334455667788
IPV4_HEADER = bytes([0x46]) + bytes(23)  # with an option


def answered(version: int, request: bytes) -> bytes:
    """As a kernel does it: the type is another one, all behind the header comes back."""
    return (IPV4_HEADER + b"\0" if version == 4 else b"\x81") + request[1:]


@given(st.sampled_from((4, 6)), st.integers(0, 0xFFFFFFFF), st.integers(0, 1500))
def test_what_is_answered_is_known_by_its_number(version: int, number: int, size: int) -> None:
    request = encode_echo(version, number, COOKIE, size=size)
    assert len(request) == max(size, 20)
    assert decode_echo(version, answered(version, request), COOKIE) == number
    assert decode_echo(version, answered(version, request), COOKIE + 1) is None
    assert decode_echo(version, request, COOKIE) is None, "a request is no answer"


@given(st.integers(0, 0xFFFFFFFF), st.integers(0, 1500))
def test_the_checksum_of_icmp_is_right(number: int, size: int) -> None:
    request = encode_echo(4, number, COOKIE, size=size)
    words = struct.unpack(f"!{(len(request) + 1) // 2}H", request + bytes(len(request) % 2))
    assert sum(words) % 0xFFFF == 0


@pytest.mark.parametrize("version", [4, 6])
@given(packet=st.binary(max_size=80))
def test_any_bytes_are_survived(version: int, packet: bytes) -> None:
    assert decode_echo(version, packet, COOKIE) is None
