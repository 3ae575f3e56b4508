from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from meshd.daemon.prefixindex import PrefixIndex

PREFIXES = st.one_of(
    st.builds(lambda a, n: ip_network((a << 28, n), strict=False), st.integers(0, 15), st.integers(0, 32)),
    st.builds(
        lambda a, n: ip_network(((a << 124).to_bytes(16, "big"), n), strict=False),
        st.integers(0, 15),
        st.integers(0, 128),
    ),
)


@given(added=st.lists(PREFIXES), removed=st.lists(PREFIXES), asked=PREFIXES)
def test_answers_are_those_of_a_plain_list(added: list, removed: list, asked: object) -> None:  # type: ignore[type-arg]
    index, plain = PrefixIndex(added), list(added)
    for prefix in removed:
        index.discard(prefix)
        if prefix in plain:
            plain.remove(prefix)
    same = [prefix for prefix in set(plain) if prefix.version == asked.version]  # type: ignore[attr-defined]
    assert len(index) == len(set(plain))
    assert set(index.overlapping(asked)) == {prefix for prefix in same if prefix.overlaps(asked)}  # type: ignore[arg-type]
    assert set(index.containing(asked)) == {p for p in same if asked.subnet_of(p)}  # type: ignore[arg-type,attr-defined]
    address = asked.network_address  # type: ignore[attr-defined]
    assert index.holds(address) == any(address in prefix for prefix in same)


def test_nothing_holds_nothing() -> None:
    assert not PrefixIndex().holds(ip_address("10.0.0.1"))
