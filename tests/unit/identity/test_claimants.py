"""Claimants against the plain definition: of all who claim a key now, the one of the lowest rank."""

from hypothesis import given
from hypothesis import strategies as st

from identity.claimants import Claimants

CLUSTERS = ("c1", "c2", "c3", "c4")
RANKS = {"c1": (0,), "c2": (1, 7), "c3": (1, 3), "c4": (1, 3)}
STEPS = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(CLUSTERS), st.booleans()), max_size=40)


@given(STEPS)
def test_the_lowest_rank_of_those_who_claim_now_wins_in_whatever_order_they_came(
    steps: list[tuple[str, str, bool]],
) -> None:
    claims: Claimants[str] = Claimants(RANKS.__getitem__)
    model: dict[str, set[str]] = {"a": set(), "b": set()}
    for key, cluster, claimed in steps:
        if claimed:
            model[key].add(cluster)
            answer = claims.put(key, cluster)
        else:
            model[key].discard(cluster)
            answer = claims.drop(key, cluster)
        order = {key: sorted(said, key=lambda name: (RANKS[name], name)) for key, said in model.items()}
        assert answer == claims.winner(key) == next(iter(order[key]), "")
        assert {key: claims.all(key) for key in model} == order
        assert dict(claims.conflicts()) == {key: said for key, said in order.items() if len(said) > 1}
        assert len(claims) == sum(map(bool, model.values()))
