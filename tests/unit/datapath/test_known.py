"""No packet that an entry is about is taken for one that concerns nobody."""

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapath import entries
from datapath.entries import Entry, IPAddress, IPNetwork
from datapath.known import known_bit, known_bits

TUNNEL = ip_address("172.18.2.11")
FOUR, SIX = ip_address("20.0.1.3"), ip_address("fd00:20::3")
NEAR = {FOUR: ip_address("20.0.1.250"), SIX: ip_address("fd00:20::ffff:1")}
FAR = {FOUR: ip_address("20.0.2.3"), SIX: ip_address("fd00:20:0:1::3")}


def about(address: IPAddress) -> list[Entry]:
    """Entries for which a packet to or from the address has to be looked at."""
    return [
        entries.ipcache_entry(address, identity=9, tunnel=TUNNEL, remote=True),
        entries.ipcache_entry(address, identity=9, tunnel=None, remote=True, unreachable=True),
        entries.node_entry(address, cluster_id=2, remote=True),
        entries.cidr_entry(ip_network(address), identity=0, tunnel=TUNNEL, remote=True),
        entries.frontend_entry(address, 80, 6, count=0),
        entries.backend_entry(1, address, 80, 6),
    ]


def bits(*items: Entry) -> set[int]:
    return {bit for entry in items for bit in known_bits(entry.map, {entry.key: entry.value})}


@pytest.mark.parametrize("address", [FOUR, SIX])
def test_each_kind_of_entry_marks_its_network_and_no_other(address: IPAddress) -> None:
    for entry in about(address):
        assert bits(entry) == {known_bit(address)} == {known_bit(NEAR[address])}, entry.map
    assert known_bit(FAR[address]) != known_bit(address)


@pytest.mark.parametrize("address", [FOUR, SIX])
def test_what_is_of_this_cluster_marks_nothing(address: IPAddress) -> None:
    local = [
        entries.ipcache_entry(address, identity=9, tunnel=None, remote=False),
        entries.node_entry(address, cluster_id=1, remote=False, here=True),
        entries.cidr_entry(ip_network(address), identity=9, tunnel=None, remote=False),
        entries.endpoint_entry(address, ifindex=1, mac=bytes(6), host_mac=bytes(6), identity=9),
        entries.service_entries(address, 80, 6, [1])[0],
    ]
    assert bits(*local) == set()


networks = st.one_of(
    st.builds(lambda n, length: IPv4Network((n, length), strict=False), st.integers(0, 2**32 - 1), st.integers(10, 32)),
    st.builds(
        lambda n, length: IPv6Network((n, length), strict=False), st.integers(0, 2**128 - 1), st.integers(0, 128)
    ),
)


@given(networks, st.data())
def test_a_prefix_marks_every_address_in_it(network: IPNetwork, data: st.DataObject) -> None:
    entry = entries.cidr_entry(network, identity=0, tunnel=TUNNEL, remote=True)
    inside = network[data.draw(st.integers(0, network.num_addresses - 1))]
    assert known_bit(inside) in bits(entry)


@given(st.lists(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), min_size=1, max_size=8))
def test_many_at_once_are_each_alone(addresses: list[IPAddress]) -> None:
    for same in zip(*(about(address) for address in addresses), strict=True):
        for map in {entry.map for entry in same}:
            those = [entry for entry in same if entry.map == map]
            by_key = {entry.key: entry for entry in those}.values()
            assert known_bits(map, {e.key: e.value for e in those}) == bits(*by_key)
