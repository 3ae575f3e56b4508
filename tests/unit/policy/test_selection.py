from hypothesis import given
from hypothesis import strategies as st

from policy.selection import Selection
from policy.selector import Labels, Operator, Requirement, Selector, pod_labels
from wire.records import Label

labels = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy"))
requirements = st.builds(
    lambda key, operator, values: Requirement(
        key, operator, tuple(sorted(values)) if operator in (Operator.IN, Operator.NOT_IN) else ()
    ),
    st.sampled_from("abc"),
    st.sampled_from(list(Operator)),
    st.sets(st.sampled_from("xy"), min_size=1),
)
selectors = st.lists(requirements, max_size=3).map(Selector.of)
steps = st.lists(
    st.tuples(st.just("put"), st.integers(1, 4), st.none() | labels)
    | st.tuples(st.sampled_from(["add", "remove"]), selectors, st.none()),
    max_size=25,
)


@given(steps)
def test_selection_equals_asking_each_selector_about_each_identity(
    history: list[tuple[str, int | Selector, Labels | None]],
) -> None:
    selection = Selection()
    known: dict[int, Labels] = {}
    added: set[Selector] = set()
    for verb, what, value in history:
        if isinstance(what, int):
            before = {s: set(selection.identities(s)) for s in added}
            changed = selection.put(what, value)
            known.pop(what, None)
            if value is not None:
                known[what] = value
            assert changed == {s for s in added if before[s] != selection.identities(s)}
        elif verb == "add":
            selection.add(what)
            added.add(what)
        elif what in added:
            selection.remove(what)
            added.discard(what)
        for selector in added:
            assert selection.identities(selector) == {i for i, found in known.items() if selector.matches(found)}


def test_labels_that_only_the_mesh_may_give_are_not_believed() -> None:
    said = (Label("app", "x"), Label("reserved:host"), Label("host", "", "reserved"), Label("cidr:10.0.0.0/8"))
    assert pod_labels(said) == {"app": "x"}
