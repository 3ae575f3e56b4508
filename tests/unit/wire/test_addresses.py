from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.addresses import LONGEST, address_number, packed_address, parse_address
from wire.codec import Scope, decode
from wire.keys import Kind
from wire.records import IP


@pytest.mark.parametrize("text", ["10.0.0.1", "255.0.19.200", "::1", "fd00::10:0:0:1", "::ffff:10.0.0.1"])
def test_an_address_is_what_the_library_says(text: str) -> None:
    assert parse_address(text) == ip_address(text)
    assert parse_address(text) is parse_address(text)


@pytest.mark.parametrize(
    "text", ["", "10.0.0.01", "10.0.0", "10.0.0.256", "10.0.0.٣", "10.0.0.+1", " 10.0.0.1", "fe80::1%" + "a" * LONGEST]
)
def test_anything_else_is_refused_and_nothing_long_is_remembered(text: str) -> None:
    with pytest.raises(ValueError, match="address"):
        parse_address(text)


@given(st.ip_addresses() | st.integers(0, 1 << 48).map(IPv6Address))
def test_packed_and_as_a_number_it_is_what_the_library_says(address: IPv4Address | IPv6Address) -> None:
    assert packed_address(str(address)) == address.packed
    assert address_number(str(address)) == (address.version, int(address))


@pytest.mark.parametrize(
    "text", ["", "10.0.0.01", "::ffff:10.0.0.1", "::10.0.0.1", "FD00::1", "0::1", "fe80::1%eth0", "10.0.0.1\0", "é::"]
)
def test_only_canonical_text_is_packed(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|canonical"):
        packed_address(text)


def test_as_a_number_an_address_may_be_written_otherwise() -> None:
    assert address_number("FD00::0:1") == (6, int(ip_address("fd00::1")))
    with pytest.raises(ValueError, match="address"):
        address_number("10.0.0.01")


def test_records_share_what_they_have_in_common() -> None:
    scope = Scope("cluster2", 2, range(131072, 196608))
    names, made = ["20.0.0.1", "20.0.0.2"], []
    for name in names:
        value = f'{{"IP":"{name}","HostIP":"172.18.2.11","ID":131073,"K8sNamespace":"default"}}'
        record = decode(Kind.IP, name, value.encode(), scope)
        assert isinstance(record, IP)
        assert record.ip is name
        made.append(record)
    assert made[0].host_ip is made[1].host_ip
    assert made[0].namespace is made[1].namespace
