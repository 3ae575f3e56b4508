from ipaddress import ip_address
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from globalsvc.annotations import Affinity
from globalsvc.backend import Backend, Offer
from globalsvc.preferences import Amount, MinHealthy, Preferences, parse_preferences
from globalsvc.selection import Rules, compute_weights, select
from wire.local import BackendState

OWN, REMOTE = True, False


@pytest.mark.parametrize(
    ("affinity", "backends", "used"),
    [
        ("none", [(OWN, "active"), (REMOTE, "active")], [1, 1]),
        ("none", [(OWN, "not-ready"), (REMOTE, "active")], [0, 1]),
        ("none", [(OWN, "terminating"), (REMOTE, "active")], [0, 1]),
        ("none", [(OWN, "terminating"), (OWN, "not-ready")], [1, 0]),
        ("none", [], []),
        ("local", [(OWN, "active"), (REMOTE, "active")], [1, 0]),
        ("local", [(OWN, "not-ready"), (REMOTE, "active")], [0, 1]),
        ("local", [(OWN, "terminating"), (REMOTE, "active")], [0, 1]),
        ("local", [(OWN, "terminating")], [1]),
        ("remote", [(OWN, "active"), (REMOTE, "active")], [0, 1]),
        ("remote", [(OWN, "active")], [1]),
        ("remote", [(OWN, "terminating"), (OWN, "active")], [0, 1]),
        ("remote", [(OWN, "terminating"), (REMOTE, "terminating")], [0, 1]),
    ],
)
def test_the_table_of_affinity(affinity: str, backends: list[tuple[bool, BackendState]], used: list[int]) -> None:
    offers = [
        Offer(Backend(ip_address("10.0.0.1"), n, "TCP", "c1" if own else "c2"), frozenset(), state, own)
        for n, (own, state) in enumerate(backends, 1)
    ]
    choices = select(offers, Rules(Affinity(affinity))).choices
    assert [int(choice.used) for choice in choices] == used
    assert all(choice.reason for choice in choices)


CLUSTERS = ["c1", "c2", "c3"]
NAMES = st.lists(st.sampled_from(CLUSTERS), unique=True).map(tuple)
OFFERS = st.lists(
    st.builds(
        lambda n, cluster, state, zones: Offer(
            Backend(ip_address("10.0.0.1"), n, "TCP", cluster), frozenset(), state, cluster == "c1", "", zones
        ),
        st.integers(1, 60000),
        st.sampled_from(CLUSTERS),
        st.sampled_from(["active", "terminating", "not-ready"]),
        st.none() | st.frozensets(st.sampled_from(["a", "b"]), min_size=1),
    ),
    max_size=12,
)
RULES = st.builds(
    Rules,
    affinity=st.sampled_from(Affinity),
    preferences=st.builds(
        Preferences,
        min_healthy=st.none() | st.builds(lambda low: MinHealthy(Amount(low, False)), st.integers(0, 6)),
        priority=NAMES,
        weights=st.dictionaries(st.sampled_from(CLUSTERS), st.integers(0, 3)),
        drained=NAMES.map(frozenset),
        zone_hints=st.booleans(),
    ),
    zone=st.sampled_from(["", "a", "b"]),
    spilling=st.none() | st.booleans(),
)


@given(OFFERS, RULES)
def test_no_preference_makes_a_black_hole(offers: list[Offer], rules: Rules) -> None:
    choices = select(offers, rules).choices
    states = {offer.state for offer, choice in zip(offers, choices, strict=True) if choice.used}
    there = {offer.state for offer in offers} - {"not-ready"}
    if "active" in there:
        assert states == {"active"}
    else:
        assert states == there
    assert all(choice.reason for choice in choices)


@given(OFFERS, RULES, st.randoms())
def test_the_order_of_the_offers_does_not_matter(offers: list[Offer], rules: Rules, random: Random) -> None:
    expected = [(offer.backend, choice) for offer, choice in zip(offers, select(offers, rules).choices, strict=True)]
    shuffled = offers.copy()
    random.shuffle(shuffled)
    seen = [(o.backend, choice) for o, choice in zip(shuffled, select(shuffled, rules).choices, strict=True)]
    assert sorted(seen, key=repr) == sorted(expected, key=repr)


@given(OFFERS, st.dictionaries(st.sampled_from(CLUSTERS), st.integers(1, 9), min_size=1))
def test_each_cluster_has_its_share_however_many_backends_it_has(offers: list[Offer], weights: dict[str, int]) -> None:
    found = compute_weights(offers, Preferences(weights=weights))
    clusters = {offer.backend.cluster for offer in offers}
    if not found:
        assert len(clusters) < 2
        return
    total = sum(weights.get(cluster, 1) for cluster in clusters)
    for cluster in clusters:
        share = sum(w for o, w in zip(offers, found, strict=True) if o.backend.cluster == cluster) / sum(found)
        assert abs(share - weights.get(cluster, 1) / total) < 1e-4


@pytest.mark.parametrize(
    ("low", "high", "active", "expected", "spilling", "enough"),
    [
        ("2", None, 2, 4, False, True),
        ("2", None, 1, 4, False, False),
        ("2", None, 2, 4, True, False),
        ("2", None, 3, 4, True, True),
        ("2", None, 2, 2, True, True),  # more than expected is not asked for
        ("5", None, 3, 3, True, False),  # but what was asked for is
        ("50%", None, 1, 3, False, False),
        ("50%", "80%", 3, 4, True, False),
        ("50%", "80%", 4, 4, True, True),
        ("0", None, 0, 4, False, True),
    ],
)
def test_min_healthy_has_two_marks(
    low: str, high: str | None, active: int, expected: int, spilling: bool, enough: bool
) -> None:
    text = f"{low}-{high}" if high else low
    preferences, problems = parse_preferences({"meshd.io/min-healthy": text})
    assert not problems
    assert preferences.min_healthy is not None
    assert preferences.min_healthy.is_enough(active, expected, spilling=spilling) is enough


def used(backends: list[tuple[str, BackendState]], rules: Rules) -> list[str]:
    """The clusters of those that are used; c1 is our own."""
    offers = [
        Offer(Backend(ip_address("10.0.0.1"), n, "TCP", cluster), frozenset(), state, cluster == "c1")
        for n, (cluster, state) in enumerate(backends, 1)
    ]
    return [
        cluster for (cluster, _), choice in zip(backends, select(offers, rules).choices, strict=True) if choice.used
    ]


def test_min_healthy_does_not_expect_what_terminates() -> None:
    preferences, _ = parse_preferences({"meshd.io/min-healthy": "100%"})
    rules = Rules(Affinity.LOCAL, preferences)
    assert used([("c1", "active"), ("c1", "active"), ("c1", "terminating"), ("c2", "active")], rules) == ["c1", "c1"]
    assert used([("c1", "active"), ("c1", "not-ready"), ("c2", "active")], rules) == ["c1", "c2"]


@pytest.mark.parametrize(("before", "others"), [(None, True), (True, True), (False, False)])
def test_between_the_marks_others_are_used_still_and_where_it_is_not_known(before: bool | None, others: bool) -> None:
    preferences, _ = parse_preferences({"meshd.io/min-healthy": "2-3"})
    backends: list[tuple[str, BackendState]] = [
        ("c1", "active"),
        ("c1", "active"),
        ("c1", "not-ready"),
        ("c2", "active"),
    ]
    found = used(backends, Rules(Affinity.LOCAL, preferences, spilling=before))
    assert ("c2" in found) is others


def test_a_cluster_of_which_all_terminate_comes_after_those_that_have_active_ones() -> None:
    rules = Rules(preferences=Preferences(priority=("c1", "c2", "c3")))
    assert used([("c1", "terminating"), ("c2", "active"), ("c3", "active")], rules) == ["c2"]
    assert used([("c1", "active"), ("c2", "active"), ("c3", "active")], rules) == ["c1"]


def test_a_node_without_a_name_has_no_backends_of_its_own() -> None:
    """internalTrafficPolicy Local: a backend without a node is on no node."""
    assert used([("c1", "active")], Rules(node_only=True, node="")) == []
