from dataclasses import replace

import pytest

from globalsvc.annotations import (
    READ,
    Affinity,
    Annotations,
    is_read,
    namespace_is_global,
    namespace_problems,
    parse_annotations,
)
from globalsvc.preferences import BALANCING, DRAIN, MIN_HEALTHY, PRIORITY, WEIGHTS, ZONE_HINTS

OLD = "io.cilium/"
NEW = "service.cilium.io/"


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({}, Annotations()),
        ({OLD + "global-service": "true"}, Annotations(is_global=True, shared=True)),
        ({NEW + "global": "True"}, Annotations(is_global=True, shared=True)),
        ({NEW + "global": ""}, Annotations()),
        ({NEW + "global": "false", OLD + "global-service": "False"}, Annotations()),
        ({NEW + "global": "true", NEW + "shared": "false"}, Annotations(is_global=True)),
        ({NEW + "global": "true", OLD + "shared-service": "False"}, Annotations(is_global=True)),
        ({NEW + "global": "true", OLD + "shared-service": ""}, Annotations(is_global=True)),
        ({NEW + "shared": "true"}, Annotations()),
        ({NEW + "affinity": "local"}, Annotations(affinity=Affinity.LOCAL)),
        ({OLD + "service-affinity": "remote"}, Annotations(affinity=Affinity.REMOTE)),
        ({NEW + "affinity": ""}, Annotations()),
    ],
)
def test_both_families_with_their_precedence_and_defaults(annotations: dict[str, str], expected: Annotations) -> None:
    assert parse_annotations(annotations) == expected
    assert set(annotations) <= READ


def test_an_unknown_affinity_is_shown_and_harmless() -> None:
    parsed = parse_annotations({NEW + "affinity": "nearest"})
    assert parsed.affinity is Affinity.NONE
    assert "nearest" in parsed.problems[0]


@pytest.mark.parametrize(("value", "other"), [("local", "remote"), ("", "local"), ("remote", "none")])
def test_of_two_spellings_that_contradict_each_other_the_current_one_counts(value: str, other: str) -> None:
    name, old = NEW + "affinity", OLD + "service-affinity"
    parsed = parse_annotations({name: value, old: other})
    assert parsed.affinity is Affinity(value or "none")
    assert parsed.problems == (f"{name}: {value!r} and {old}: {other!r} contradict each other: the first counts",)
    assert parse_annotations({name: value, old: value.upper()}).problems == ()


@pytest.mark.parametrize(("value", "is_global"), [("true", True), ("false", False)])
def test_a_contradiction_about_being_global_is_shown(value: str, is_global: bool) -> None:
    other = "false" if is_global else "true"
    parsed = parse_annotations({NEW + "global": value, OLD + "global-service": other})
    assert (parsed.is_global, parsed.is_doubtful, len(parsed.problems)) == (is_global, False, 1)
    assert "contradict each other" in parsed.problems[0]


@pytest.mark.parametrize("name", sorted(READ))
def test_an_unknown_value_of_any_annotation_is_shown_and_the_safe_default_is_used(name: str) -> None:
    others = {"service.cilium.io/global": "true"} if "global" not in name else {}
    parsed, without = parse_annotations(others | {name: "§"}), parse_annotations(others)
    (problem,) = parsed.problems
    assert "§" in problem
    assert name in problem or "affinity" in problem
    safe = replace(without, shared=False) if "shared" in name else without
    assert replace(parsed, problems=(), is_doubtful=False) == safe
    assert parsed.is_doubtful is ("global" in name)


def test_every_annotation_is_read_and_a_misspelt_one_is_named() -> None:
    assert {BALANCING, DRAIN, MIN_HEALTHY, PRIORITY, WEIGHTS, ZONE_HINTS} <= READ
    assert parse_annotations({"meshd.io/min-healty": "1"}).problems == (
        "meshd.io/min-healty is no annotation that meshd knows: it is ignored",
    )
    assert is_read("meshd.io/min-healty")
    assert not is_read("example.org/owner")


@pytest.mark.parametrize(
    ("annotations", "default", "expected"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"clustermesh.cilium.io/global": "false"}, True, False),
        ({"clustermesh.cilium.io/global": "true"}, False, True),
    ],
)
def test_namespaces(annotations: dict[str, str], default: bool, expected: bool) -> None:
    assert namespace_is_global(annotations, default=default) is expected


@pytest.mark.parametrize("value", ["maybe", "1", "yes"])
def test_a_namespace_that_cannot_be_understood_is_hidden_and_shown_as_a_problem(value: str) -> None:
    annotations = {"clustermesh.cilium.io/global": value}
    assert not namespace_is_global(annotations)
    (problem,) = namespace_problems(annotations)
    assert repr(value) in problem
    assert namespace_problems({"clustermesh.cilium.io/global": "True"}) == namespace_problems({}) == ()
