from hypothesis import given
from hypothesis import strategies as st

from identity.claims import Claims

IDS = {"own": 9, "a": 1, "b": 2, "c": 2}


def rank(cluster: str) -> tuple[int, ...]:
    return (0, 0) if cluster == "own" else (1, IDS[cluster])


steps = st.lists(
    st.tuples(st.sampled_from(["put", "drop"]), st.integers(0, 2), st.sampled_from(sorted(IDS)), st.integers(0, 5))
)


@given(steps)
def test_claims_equal_a_plain_model(history: list[tuple[str, int, str, int]]) -> None:
    claims: Claims[int, int] = Claims(rank)
    model: dict[int, dict[str, int]] = {}
    for verb, key, cluster, value in history:
        if verb == "put":
            claims.put(key, cluster, value)
            model.setdefault(key, {})[cluster] = value
        else:
            claims.drop(key, cluster)
            model.get(key, {}).pop(cluster, None)
    model = {key: said for key, said in model.items() if said}
    assert sorted(claims.keys()) == sorted(model)
    assert len(claims) == len(model)
    for key in range(3):
        order = sorted(model.get(key, {}), key=lambda cluster: (rank(cluster), cluster))
        assert claims.winner(key) == ((order[0], model[key][order[0]]) if order else None)
        assert claims.losers(key) == order[1:]
    assert dict(claims.conflicts()) == {
        key: sorted(said, key=lambda cluster: (rank(cluster), cluster)) for key, said in model.items() if len(said) > 1
    }


def test_the_own_cluster_wins_then_the_lower_id_then_the_name() -> None:
    claims: Claims[str, int] = Claims(rank)
    for cluster in ("c", "b", "a", "own"):
        claims.put("10.0.0.1", cluster, IDS[cluster])
    assert claims.winner("10.0.0.1") == ("own", 9)
    assert claims.losers("10.0.0.1") == ["a", "b", "c"]
    claims.drop("10.0.0.1", "own")
    assert claims.winner("10.0.0.1") == ("a", 1)
