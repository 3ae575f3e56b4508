"""The quick judge of many records says what is said of each, whatever is ours and whatever is allowed."""

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from meshd.daemon.allowance import Allowance
from meshd.daemon.trust import Trust
from wire.addresses import address_number
from wire.records import IP

ADDRESSES = ("10.0.0.1", "10.0.1.1", "20.0.0.1", "127.0.0.1", "0.1.2.3", "fd00::1", "fe80::1", "::1", "ff02::1")
HOSTS = ("", "172.18.1.11", "172.18.2.11", "fd00:1::1")
ALLOWED = (None, (), ("20.0.0.0/8", "fd00::/8"), ("10.0.0.0/24",))
PREFIXES = ("10.0.0.0/24", "10.0.1.1/32", "20.0.0.0/16", "fd00::/64")


@given(
    st.sets(st.sampled_from(PREFIXES)),
    st.sets(st.sampled_from(HOSTS[1:])),
    st.sampled_from(ALLOWED),
    st.lists(st.tuples(st.sampled_from(ADDRESSES), st.sampled_from(HOSTS))),
)
def test_the_judge_says_what_is_said_of_each(
    ours: set[str], nodes: set[str], allowed: tuple[str, ...] | None, said: list[tuple[str, str]]
) -> None:
    trust = Trust(lambda cluster: Allowance(None if allowed is None else tuple(map(ip_network, allowed))))
    trust.territory.set("c", tuple(map(ip_network, ours)))
    trust.territory.set_node("n", map(ip_address, nodes))
    judge = trust.judge("cluster2")
    for address, host in said:
        record = IP(ip=address, host_ip=host, id=1)
        assert judge(record, *address_number(address)) == trust.ip("cluster2", record)
