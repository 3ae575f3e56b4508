from ipaddress import ip_address

import pytest

from wire.addresses import LONGEST, parse_address
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
