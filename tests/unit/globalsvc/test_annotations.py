import pytest

from globalsvc.annotations import READ, Affinity, Annotations, namespace_is_global, parse_annotations

OLD = "io.cilium/"
NEW = "service.cilium.io/"


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({}, Annotations()),
        ({OLD + "global-service": "true"}, Annotations(is_global=True, shared=True)),
        ({NEW + "global": "True"}, Annotations(is_global=True, shared=True)),
        ({NEW + "global": "yes"}, Annotations()),
        ({NEW + "global": "false", OLD + "global-service": "true"}, Annotations()),
        ({NEW + "global": "true", NEW + "shared": "false"}, Annotations(is_global=True)),
        ({NEW + "global": "true", OLD + "shared-service": "no"}, Annotations(is_global=True)),
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
