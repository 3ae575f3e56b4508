"""What a target holds is what was written, whatever is desired meanwhile: beside a plain dictionary."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from meshd.reconcile.realised import Held, Realised

KEYS = st.sampled_from([b"1", b"2", b"3"])
VALUES = st.one_of(st.none(), st.sampled_from([b"x", b"y", b""]))
STEPS = st.lists(st.tuples(st.sampled_from(["want", "write", "replace"]), st.dictionaries(KEYS, VALUES)), max_size=12)


def put(entries: dict[bytes, bytes], changes: dict[bytes, bytes | None]) -> None:
    for key, value in changes.items():
        if value is None:
            entries.pop(key, None)
        else:
            entries[key] = value


@given(STEPS)
def test_it_holds_what_was_written(steps: list[tuple[str, dict[bytes, bytes | None]]]) -> None:
    desired: dict[bytes, bytes] = {}
    held, model = Held(desired), dict[bytes, bytes]()
    for what, changes in steps:
        if what == "want":
            held.keep(changes)
            put(desired, changes)
        elif what == "write":
            held.put(changes)
            put(model, changes)
        else:
            model = {key: value for key, value in changes.items() if value is not None}
            held.replace(model)
        assert dict(held) == model
        assert len(held) == len(model)
        assert {key: held.get(key) for key in (b"1", b"2", b"3")} == {k: model.get(k) for k in (b"1", b"2", b"3")}
        differing = {key for key in {*desired, *model} if desired.get(key) != model.get(key)}
        found = list(held.differing([b"1", b"2", b"3"]))
        assert {key for key, _, _ in found} == differing == held.differs.keys()
        assert all((wanted, there) == (desired.get(key), model.get(key)) for key, wanted, there in found)


def test_what_is_as_desired_takes_no_memory() -> None:
    desired = {bytes([number]): b"x" for number in range(100)}
    held = Held(desired)
    held.replace(dict(desired))
    assert len(held) == 100
    assert not held.differs


def test_a_map_that_nobody_spoke_of_is_empty() -> None:
    desired: defaultdict[str, dict[bytes, bytes]] = defaultdict(dict)
    realised = Realised(desired)
    assert dict(realised["a"]) == {}
    realised["a"].keep({b"1": b"x"})
    desired["a"][b"1"] = b"x"
    assert b"1" not in realised["a"]
