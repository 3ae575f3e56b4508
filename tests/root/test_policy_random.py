"""Random policies as packets: the loaded programs give the verdict of a naive interpreter of the specifications."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.policed import Bench, bench
from tests.support.policy_cases import FLOWS, parties, policies
from tests.support.policy_model import build
from tests.support.policy_oracle import Oracle, Party

pytestmark = pytest.mark.root
# Types that are neither echoes nor errors have no ends of their own: what one side sends lets the other answer.
PACKET_FLOWS = [flow for flow in FLOWS if flow not in (("ICMP", 128), ("ICMPv6", 8))]
PREFIX = {"cluster1": "10.0.0", "cluster2": "20.0.0"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("random")) as each:
        yield each


def addressed(everybody: dict[str, Party]) -> dict[str, Party]:
    """Each pod with an address of its own."""
    return {
        name: replace(party, address=f"{PREFIX[party.cluster]}.{number}") if party.kind == "pod" else party
        for number, (name, party) in enumerate(everybody.items(), 1)
    }


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    everybody=parties().map(addressed),
    documents=policies(),
    flows=st.lists(st.sampled_from(PACKET_FLOWS), min_size=3, max_size=3, unique=True),
)
def test_packets_get_the_verdict_of_the_specification(
    made: Bench, everybody: dict[str, Party], documents: list[dict[str, Any]], flows: list[tuple[str, int]]
) -> None:
    made.load(build(everybody, documents))
    model = build(everybody, documents)
    oracle = Oracle("cluster1", tuple(documents), True)
    for source, sender in everybody.items():
        for destination, receiver in everybody.items():
            if source == destination:
                continue
            for protocol, port in flows:
                expected = oracle.passes(sender, receiver, protocol, port)
                passes = made.passes(model, source, destination, protocol, port)
                assert passes is expected, (source, destination, protocol, port)
