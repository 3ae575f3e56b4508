"""Golden bytes of map entries, and the way back from bytes to arguments."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapath import entries
from datapath.description import decode, describe
from datapath.entries import Entry
from datapath.layout import MAPS
from datapath.servicelayout import SvcFlag
from datapath.slots import Slot

TCP, UDP = 6, 17
addresses = st.ip_addresses()
ports = st.integers(1, 0xFFFF)
ids = st.integers(1, 0xFFFFFFFF)


def test_golden_bytes_of_an_ipcache_entry() -> None:
    entry = entries.ipcache_entry(
        ip_address("20.0.0.1"), identity=0x020007, tunnel=ip_address("172.18.2.11"), remote=True
    )
    assert entry.map == "md_ipcache"
    assert entry.key.hex() == "04000000" + "14000001" + "00" * 12
    assert entry.value.hex() == "07000200" + "03000000" + "ac12020b" + "00" * 12


def test_golden_bytes_of_an_ipv6_ipcache_entry() -> None:
    entry = entries.ipcache_entry(ip_address("fd00:10:2::1"), identity=1, tunnel=None, remote=False)
    assert entry.key.hex() == "06000000" + "fd000010000200000000000000000001"
    assert entry.value.hex() == "01000000" + "00000000" + "00" * 16


def test_golden_bytes_of_a_cidr_entry() -> None:
    entry = entries.cidr_entry(ip_network("20.0.1.0/24"), identity=0, tunnel=ip_address("fd00::2"), remote=True)
    assert entry.map == "md_cidrs"
    assert entry.key.hex() == "38000000" + "04000000" + "14000100" + "00" * 12
    assert entry.value.hex() == "00000000" + "05000000" + "fd000000000000000000000000000002"


def test_golden_bytes_of_an_endpoint_entry() -> None:
    entry = entries.endpoint_entry(
        ip_address("10.0.1.1"), ifindex=7, mac=b"\2\0\0\0\0\1", host_mac=b"\2\0\0\0\0\2", identity=0x10003
    )
    assert entry.key.hex() == "04000000" + "0a000101" + "00" * 12
    assert entry.value.hex() == "07000000" + "03000100" + "020000000001" + "020000000002" + "00000000"


def test_golden_bytes_of_the_mark() -> None:
    entry = entries.mark_entry(0x0102)
    assert (entry.map, entry.key.hex(), entry.value.hex()) == ("md_numbers", "00000000", "02010000")
    assert describe(entry) == "mark=258"


def test_golden_bytes_of_a_service() -> None:
    made = entries.service_entries(ip_address("10.96.0.1"), 8080, TCP, [5, 9])
    assert [e.map for e in made] == ["md_svc4"] * 3
    assert [e.key.hex() for e in made] == [
        "0a600001" + "1f90" + "0100" + "06" + "00" + "0000",
        "0a600001" + "1f90" + "0200" + "06" + "00" + "0000",
        "0a600001" + "1f90" + "0000" + "06" + "00" + "0000",
    ]
    assert [e.value.hex() for e in made] == ["0500000000000000", "0900000000000000", "0000000002000000"]


def test_golden_bytes_of_backends() -> None:
    four = entries.backend_entry(3, ip_address("20.0.0.2"), 80, UDP)
    assert (four.map, four.key.hex(), four.value.hex()) == ("md_be4", "03000000", "14000002" + "0050" + "1100")
    six = entries.backend_entry(3, ip_address("fd00::1"), 80, TCP)
    assert (six.map, six.value.hex()) == ("md_be6", "fd000000000000000000000000000001" + "0050" + "0600")


def test_config_says_what_fits_into_the_tunnel() -> None:
    entry = entries.config_entry(tunnel_ifindex=4, underlay_mtu=1500, node_netns=0x0102)
    mtus = (1450).to_bytes(2, "little") + (1430).to_bytes(2, "little")
    assert entry.value.hex() == "04000000" + mtus.hex() + "0201" + 12 * "0"
    assert entries.config_entry(tunnel_ifindex=4, underlay_mtu=0).value.hex() == "04" + 30 * "0"


def test_a_frontend_comes_after_its_slots_and_after_backends() -> None:
    made = entries.service_entries(ip_address("fd00::a"), 80, TCP, [1, 2, 3])
    assert [decode(e).get("slot") for e in made] == [1, 2, 3, None]
    assert entries.RANK["md_be6"] < entries.RANK["md_svc6"]


def test_a_service_without_backends_is_one_frontend_that_refuses() -> None:
    (only,) = entries.service_entries(ip_address("10.96.0.1"), 80, TCP, [])
    assert describe(only) == "10.96.0.1/80/6 count=0"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: entries.backend_entry(0, ip_address("10.0.0.1"), 80, TCP), "backend_id 0"),
        (lambda: entries.backend_entry(1, ip_address("10.0.0.1"), 0, TCP), "port 0"),
        (lambda: entries.service_entries(ip_address("10.0.0.1"), 65536, TCP, []), "port 65536"),
        (
            lambda: entries.endpoint_entry(
                ip_address("10.0.0.1"), ifindex=1, mac=bytes(6), host_mac=bytes(6), identity=1 << 24
            ),
            "identity 16777216",
        ),
        (
            lambda: entries.endpoint_entry(
                ip_address("10.0.0.1"), ifindex=1, mac=bytes(5), host_mac=bytes(6), identity=1
            ),
            "MAC address 5",
        ),
    ],
)
def test_what_cannot_be_stored_is_refused_by_name(make: object, reason: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=reason):
        make()


def test_description_is_readable() -> None:
    entry = entries.ipcache_entry(ip_address("20.0.0.1"), identity=7, tunnel=ip_address("172.18.2.11"), remote=True)
    assert describe(entry) == "20.0.0.1 identity=7 tunnel=172.18.2.11 remote=True"
    endpoint = entries.endpoint_entry(
        ip_address("10.0.0.1"), ifindex=3, mac=b"\2\0\0\0\0\1", host_mac=bytes(6), identity=9
    )
    assert describe(endpoint) == (
        "10.0.0.1 ifindex=3 mac=02:00:00:00:00:01 host_mac=00:00:00:00:00:00 identity=9 policed=False "
        "through_stack=False"
    )


def _sizes_are_right(entry: Entry) -> bool:
    spec = MAPS[entry.map]
    return (len(entry.key), len(entry.value)) == (spec.key_size, spec.value_size)


@given(addresses, st.integers(0, 0xFFFFFFFF), st.none() | addresses, st.booleans())
def test_ipcache_round_trip(
    address: IPv4Address | IPv6Address,
    identity: int,
    tunnel: IPv4Address | IPv6Address | None,
    remote: bool,
) -> None:
    entry = entries.ipcache_entry(address, identity=identity, tunnel=tunnel, remote=remote)
    assert _sizes_are_right(entry)
    assert decode(entry) == {"address": address, "identity": identity, "tunnel": tunnel, "remote": remote}


@given(addresses, st.data(), st.none() | addresses)
def test_cidr_round_trip(
    address: IPv4Address | IPv6Address, data: st.DataObject, tunnel: IPv4Address | IPv6Address | None
) -> None:
    prefix = ip_network((address, data.draw(st.integers(0, address.max_prefixlen))), strict=False)
    entry = entries.cidr_entry(prefix, identity=1, tunnel=tunnel, remote=True)
    assert _sizes_are_right(entry)
    assert decode(entry)["prefix"] == prefix


@given(addresses, st.integers(1, 0x7FFFFFFF), st.binary(min_size=6, max_size=6), st.integers(0, 0xFFFFFF))
def test_endpoint_round_trip(address: IPv4Address | IPv6Address, ifindex: int, mac: bytes, identity: int) -> None:
    entry = entries.endpoint_entry(address, ifindex=ifindex, mac=mac, host_mac=mac[::-1], identity=identity)
    assert _sizes_are_right(entry)
    assert decode(entry) == {
        "address": address,
        "ifindex": ifindex,
        "mac": mac,
        "host_mac": mac[::-1],
        "identity": identity,
        "policed": False,
        "through_stack": False,
    }


@given(addresses, ports, st.sampled_from([TCP, UDP, 132]), st.lists(ids, max_size=20))
def test_service_round_trip(address: IPv4Address | IPv6Address, port: int, protocol: int, backends: list[int]) -> None:
    made = entries.service_entries(address, port, protocol, backends)
    assert all(_sizes_are_right(e) for e in made)
    assert len({e.key for e in made}) == len(made)
    facts = [decode(e) for e in made]
    assert all((f["address"], f["port"], f["protocol"]) == (address, port, protocol) for f in facts)
    assert [f["backend_id"] for f in facts[:-1]] == backends
    assert facts[-1]["count"] == len(backends)


@given(ids, addresses, ports)
def test_backend_round_trip(backend_id: int, address: IPv4Address | IPv6Address, port: int) -> None:
    entry = entries.backend_entry(backend_id, address, port, UDP)
    assert _sizes_are_right(entry)
    assert decode(entry) == {
        "backend_id": backend_id,
        "address": address,
        "port": port,
        "protocol": UDP,
    }


def test_golden_bytes_of_a_frontend_with_session_affinity_and_of_a_weighted_slot() -> None:
    frontend = entries.frontend_entry(
        ip_address("10.96.0.1"), 80, TCP, count=2, session_affinity_timeout_s=10800, flags=SvcFlag.MAGLEV
    )
    assert frontend.value.hex() == "302a0000" + "0200" + "0300"
    slot = entries.slot_entry(ip_address("10.96.0.1"), 80, TCP, slot=1, value=Slot(5, chance=0x8000, alias=2))
    assert slot.value.hex() == "05000000" + "0080" + "0200"
    assert describe(slot) == "10.96.0.1/80/6 slot=1 backend_id=5 chance=32768 alias=2"


def test_golden_bytes_of_members_and_tables() -> None:
    member = entries.member_entry(ip_address("10.96.0.1"), 80, TCP, 5)
    assert (member.map, member.key.hex()) == ("md_affm", "0a600001" + "00" * 12 + "0050" + "06" + "04" + "05000000")
    assert decode(member) == {"address": ip_address("10.96.0.1"), "port": 80, "protocol": TCP, "backend_id": 5}
    table = entries.maglev_entry(ip_address("fd00::1"), 80, UDP, b"abcd")
    assert table.key.hex() == "fd000000000000000000000000000001" + "0050" + "11" + "06"
    assert decode(table)["address"] == ip_address("fd00::1")
