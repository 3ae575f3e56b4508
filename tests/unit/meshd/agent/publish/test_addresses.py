from hypothesis import given
from hypothesis import strategies as st

from meshd.agent.index import ObjectName
from meshd.agent.publish.addresses import AddressOwners

PODS: list[ObjectName] = [("n", "a"), ("n", "b"), ("m", "a")]
IPS = ["10.0.0.1", "10.0.0.2"]


@given(st.lists(st.tuples(st.sampled_from(PODS), st.lists(st.sampled_from(IPS), max_size=3), st.booleans())))
def test_the_owner_is_the_least_of_those_who_claim_it_now(
    history: list[tuple[ObjectName, list[str], bool]],
) -> None:
    terminating: set[ObjectName] = set()
    claims: dict[ObjectName, list[str]] = {}
    owners = AddressOwners(terminating.__contains__)
    for pod, addresses, ends in history:
        (terminating.add if ends else terminating.discard)(pod)
        told = owners.claim(pod, addresses)
        assert told == {*claims.get(pod, ()), *addresses}
        claims[pod] = addresses
        for ip in IPS:
            ranked = sorted((each in terminating, "/".join(each)) for each in claims if ip in claims[each])
            assert owners.owner(ip) == (tuple(ranked[0][1].split("/")) if ranked else None)
            names = [name for _, name in ranked]
            assert dict(owners.conflicts()).get(ip, []) == (names if len(names) > 1 else [])
