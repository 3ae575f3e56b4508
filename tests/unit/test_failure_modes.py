"""docs/failure-modes.md names for each clause the tests that show it: they are there."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
_WORDS = re.compile(r"`([^`]+)`")
_FILE = re.compile(r"test_\w+\.py|tests/chaos")
_NAME = re.compile(r"([a-z0-9]+(?:_[a-z0-9]+)+)(…|\[\w+\])*")


def named() -> Iterator[tuple[str, str]]:
    """File and part of a test's name ("": none is named), in the order of the table."""
    for line in (ROOT / "docs" / "failure-modes.md").read_text().splitlines():
        file = ""
        for word in _WORDS.findall(line):
            if _FILE.fullmatch(word):
                file = word
                yield file, ""
            elif file and (name := _NAME.fullmatch(word)):
                yield file, name[1]


def source(file: str) -> str:
    if file == "tests/chaos":
        return (TESTS / "chaos" / "chaos_suite.py").read_text()
    found = list(TESTS.rglob(file))
    assert found, f"there is no {file}"
    return "\n".join(path.read_text() for path in found)


def test_every_test_that_is_named_is_there() -> None:
    names = list(named())
    assert len(names) > 50
    missing = [
        f"{file}: {name}" for file, name in names if not re.search(rf"def test_\w*{name}", source(file)) and name
    ]
    assert not missing


def test_every_clause_has_a_row() -> None:
    text = (ROOT / "docs" / "failure-modes.md").read_text()
    rows = {int(number) for line in re.findall(r"^\| ([\d, ]+) ", text, re.MULTILINE) for number in line.split(",")}
    assert rows >= set(range(1, 13))
