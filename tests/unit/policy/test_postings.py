"""Found is who has a label, beside a plain list of labels."""

from hypothesis import given
from hypothesis import strategies as st

from policy.postings import Postings

LABELS = st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy"))


@given(st.lists(st.tuples(st.integers(0, 3), LABELS), max_size=20))
def test_who_has_a_label_is_found(puts: list[tuple[int, dict[str, str]]]) -> None:
    postings, held = Postings[int](), dict[int, dict[str, str]]()
    for who, labels in puts:
        postings.discard(who, held.pop(who, {}).items())
        if labels:
            postings.add(who, labels.items())
            held[who] = labels
        for key in "ab":
            for value in "xy":
                assert sorted(postings.find(key, value)) == sorted(
                    w for w, own in held.items() if own.get(key) == value
                )
            assert sorted(postings.find_any(key)) == sorted(w for w, own in held.items() if key in own)
