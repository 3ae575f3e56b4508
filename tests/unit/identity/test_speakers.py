"""Whoever claims an address is among those who speak of it, and what nobody claims takes no memory."""

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from identity.speakers import Speakers

ADDRESSES = [ip_address(text).packed for text in ("10.0.0.1", "10.0.0.2", "10.0.1.1", "fd00::1", "fd00::ffff:2")]
CLUSTERS = st.sampled_from(["a", "b", "c"])


@given(st.lists(st.tuples(CLUSTERS, st.sampled_from(ADDRESSES), st.booleans()), max_size=30), CLUSTERS)
def test_who_claims_an_address_is_found(steps: list[tuple[str, bytes, bool]], leaver: str) -> None:
    speakers, claims = Speakers(), {address: set[str]() for address in ADDRESSES}

    def say(cluster: str, address: bytes, says: bool) -> None:
        before = bool(claims[address])
        if says:
            assert cluster in speakers.hear(address, cluster)
            claims[address].add(cluster)
        else:
            claims[address].discard(cluster)
        speakers.count(address, bool(claims[address]) - before)

    for step in steps:
        say(*step)
        assert all(claims[address] <= set(speakers.of(address)) for address in ADDRESSES)
    speakers.forget(leaver)
    assert not any(leaver in speakers.of(address) for address in ADDRESSES)
    for address in ADDRESSES:
        for cluster in sorted(claims[address]):
            say(cluster, address, False)
    assert len(speakers) == 0


def test_one_network_is_one_entry() -> None:
    speakers = Speakers()
    for number in range(256):
        address = bytes([10, 0, 0, number])
        assert speakers.hear(address, "a") == ("a",)
        speakers.count(address, 1)
    assert len(speakers) == 1
