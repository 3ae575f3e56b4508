import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.agent.objects import Namespace, ObjectKind, Ref
from meshd.agent.sources.documents import Content, parse_file

A, B = Ref(ObjectKind.NAMESPACE, "", "a"), Ref(ObjectKind.NAMESPACE, "", "b")


def parse(text: str) -> Content:
    return parse_file("f.yaml", textwrap.dedent(text).encode())


def test_several_documents_and_kinds_that_are_not_ours() -> None:
    content = parse("""\
        # a comment
        ---
        kind: Namespace
        metadata: {name: a}
        --- # another
        apiVersion: apps/v1
        kind: Deployment
        ---
        kind: Namespace
        metadata: {name: b}
        ...
        ---
        # nothing here
        """)
    assert list(content.objects) == [A, B]
    assert content.problems == []


def test_a_list_is_its_items() -> None:
    content = parse("""\
        kind: List
        items:
        - {kind: Namespace, metadata: {name: a}}
        - {kind: Namespace, metadata: {name: b}}
        """)
    assert list(content.objects) == [A, B]


def test_dates_are_text() -> None:
    content = parse("kind: Namespace\nmetadata: {name: a, labels: {since: 2026-01-01}}")
    namespace = content.objects[A]
    assert isinstance(namespace, Namespace)
    assert namespace.metadata.labels == {"since": "2026-01-01"}


def test_a_broken_document_costs_itself_and_is_named() -> None:
    content = parse("""\
        kind: Namespace
        metadata: {name: a}
        ---
        kind: Namespace
        metadata: {name: [}
        ---
        kind: Namespace
        metadata: {name: b}
        """)
    assert list(content.objects) == [A, B]
    (problem,) = content.problems
    assert (problem.file, problem.document, problem.line) == ("f.yaml", 2, 5)
    assert str(problem).startswith("f.yaml:5 (document 2): not YAML (")
    assert str(problem).endswith("correct the syntax")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is empty: delete it"),
        ("just words", "no Kubernetes object"),
        ("metadata: {name: a}", "no Kubernetes object"),
        ("kind: List\nitems: 3", "no Kubernetes object"),
        ("kind: Namespace\nmetadata: {name: a, labels: {x: true}}", "Namespace a: Expected `str`, got `bool`"),
        ("kind: Namespace\nmetadata: 3", "Namespace without metadata"),
        (
            "kind: Node\nmetadata: {name: a}\n---\nkind: Node\nmetadata: {name: a}",
            "defined twice in this file",
        ),
        ("a: !!python/object:os.system {}", "not YAML"),
        ("a: !!int x", "not YAML"),
        ("[" * 2000, "not YAML"),
        ("kind: Namespace\nmetadata: &m {name: a, labels: *m}", ""),
    ],
)
def test_what_is_wrong_is_said(text: str, words: str) -> None:
    (problem,) = parse_file("f.yaml", text.encode()).problems
    assert words in str(problem)
    assert problem.remedy


def test_not_utf_8() -> None:
    (problem,) = parse_file("f.yaml", b"\xff\xfe").problems
    assert "not UTF-8" in str(problem)


@given(st.binary(max_size=60) | st.text(alphabet="ab:-[]{}#&*!|> \n'\"%", max_size=60).map(str.encode))
def test_any_bytes_are_content_and_problems(data: bytes) -> None:
    for problem in parse_file("f.yaml", data).problems:
        assert problem.line >= 1
        assert problem.reason
