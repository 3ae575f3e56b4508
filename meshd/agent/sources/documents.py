"""Kubernetes YAML as objects. A document that is broken costs itself: the others of the same file are read.

Pure. Documents are told apart by their `---` lines before any of them is parsed.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import yaml

from meshd.agent.decoding import BadObject, decode_object, kind_of
from meshd.agent.objects import KubernetesObject, Ref

_SEPARATOR = re.compile(r"^---(?=\s|$)", re.MULTILINE)
_TIMESTAMP = "tag:yaml.org,2002:timestamp"


class _Loader(yaml.CSafeLoader):
    """Dates stay text, as they are in JSON."""

    yaml_implicit_resolvers = {  # noqa: RUF012 — the library's own way
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
        for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong where, and what to do about it. Lines count from 1; document 0 is the whole file."""

    file: str
    document: int
    line: int
    reason: str
    remedy: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" + (f" (document {self.document})" if self.document else "")
        return f"{where}: {self.reason}: {self.remedy}"


@dataclass(slots=True)
class Content:
    """What a file says. With a problem it may say less than it should."""

    objects: dict[Ref, KubernetesObject] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def parse_file(file: str, data: bytes) -> Content:
    """All objects of a file; `file` is its name in problems. Raises nothing."""
    content = Content()
    if not data.strip():
        content.problems.append(Problem(file, 0, 1, "the file is empty", "delete it to take its objects away"))
        return content
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        content.problems.append(Problem(file, 0, 1, f"not UTF-8 ({error.reason})", "save it as UTF-8"))
        return content
    for number, (line, document) in enumerate(_split(text), 1):
        _parse_document(file, number, line, document, content)
    return content


def _split(text: str) -> Iterator[tuple[int, str]]:
    """Each document with the line that it starts on."""
    starts = [0, *(match.start() for match in _SEPARATOR.finditer(text)), len(text)]
    line = 1
    for start, end in pairwise(starts):
        document = text[start:end]
        if any(
            part.strip() and not part.lstrip().startswith("#") for part in document.removeprefix("---").splitlines()
        ):
            yield line, document
        line += document.count("\n")


def _parse_document(file: str, number: int, line: int, document: str, content: Content) -> None:
    try:
        value = yaml.load(document, _Loader)  # noqa: S506 — a safe loader
    except yaml.MarkedYAMLError as error:
        at = line + error.problem_mark.line if error.problem_mark else line
        reason = f"not YAML ({' '.join(filter(None, (error.context, error.problem)))})"
        content.problems.append(Problem(file, number, at, reason, "correct the syntax"))
        return
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = f"not YAML ({' '.join(str(error).split())})"
        content.problems.append(Problem(file, number, line, reason, "correct the syntax"))
        return
    for item in _items(value):
        _take(file, number, line, item, content)


def _items(value: Any) -> Iterator[Any]:
    """The document itself, or the items of a List."""
    if isinstance(value, dict) and value.get("kind") == "List":
        items = value.get("items") or []
        yield from items if isinstance(items, list) else [items]
    elif value is not None:
        yield value


def _take(file: str, number: int, line: int, item: Any, content: Content) -> None:
    if not isinstance(item, dict) or not isinstance(item.get("kind"), str):
        reason = "no Kubernetes object (a mapping with apiVersion, kind and metadata)"
        content.problems.append(Problem(file, number, line, reason, "complete it, or move it out of the folder"))
        return
    kind = kind_of(item)
    if kind is None:
        return
    try:
        ref, decoded = decode_object(kind, item)
    except BadObject as error:
        remedy = "correct the field (text that looks like a number or a boolean needs quotes)"
        content.problems.append(Problem(file, number, line, f"{kind} {_name(item)}: {error}", remedy))
        return
    if ref in content.objects:
        reason = f"{ref} is defined twice in this file"
        content.problems.append(Problem(file, number, line, reason, "remove one: the first is used"))
        return
    content.objects[ref] = decoded


def _name(item: dict[str, Any]) -> str:
    metadata = item.get("metadata")
    return str(metadata.get("name", "without a name")) if isinstance(metadata, dict) else "without metadata"
