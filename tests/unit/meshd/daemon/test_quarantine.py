"""The counts by reason are those of what is held, whatever happened, and a turn tells of each change."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from meshd.daemon.quarantine import Quarantine
from wire.keys import Kind

NOTE = st.tuples(
    st.sampled_from(["c2", "c3"]),
    st.sampled_from([Kind.IP, Kind.NODE]),
    st.sampled_from("abc"),
    st.sampled_from([None, "ours", "outside"]),
)
FORGET = st.sampled_from(["c2", "c3"])


@given(st.lists(NOTE | FORGET, max_size=40))
def test_counts_and_turns_follow_what_is_held(steps: list[tuple[str, Kind, str, str | None] | str]) -> None:
    quarantine = Quarantine()
    model: dict[tuple[str, Kind, str], str] = {}
    for step in steps:
        before, turn = dict(model), quarantine.turn
        if isinstance(step, str):
            quarantine.forget(step)
            model = {key: reason for key, reason in model.items() if key[0] != step}
        else:
            cluster, kind, name, reason = step
            quarantine.note(cluster, kind, name, reason, 1.0)
            model.pop((cluster, kind, name), None)
            if reason is not None:
                model[cluster, kind, name] = reason
        assert (quarantine.turn != turn) is (model != before)
        for key in ((c, k) for c in ("c2", "c3") for k in (Kind.IP, Kind.NODE)):
            held = {name: reason for (*found, name), reason in model.items() if tuple(found) == key}
            assert quarantine.reasons(*key) == Counter(held.values())
            assert quarantine.count(*key) == len(held)
            assert bool(quarantine.turn_of(*key)) is bool(held)
