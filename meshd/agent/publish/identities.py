"""Which namespace a number's labels name: what is not shown of a namespace includes its identities."""

from collections.abc import Mapping, Set

from wire.labels import NAMESPACE_LABEL, parse_labels


class IdentityNamespaces:
    """The numbers of every namespace."""

    def __init__(self) -> None:
        self._namespace: dict[int, str] = {}
        self._numbers: dict[str, set[int]] = {}

    def add(self, number: int, labels: str) -> None:
        """The number stands for these labels."""
        namespace = _namespace_of(labels)
        if (known := self._namespace.get(number)) is not None:
            self._numbers[known].discard(number)
        self._namespace[number] = namespace
        self._numbers.setdefault(namespace, set()).add(number)

    def replace(self, allocations: Mapping[int, str]) -> set[int]:
        """Only these numbers exist; returns all that existed before or do now."""
        before = set(self._namespace)
        self._namespace, self._numbers = {}, {}
        for number, labels in allocations.items():
            self.add(number, labels)
        return before | set(self._namespace)

    def namespace_of(self, number: int) -> str:
        """The namespace, "" if the number is unknown or its labels name none."""
        return self._namespace.get(number, "")

    def numbers_of(self, namespace: str) -> Set[int]:
        return self._numbers.get(namespace, frozenset())


def _namespace_of(labels: str) -> str:
    try:
        found = (label.value for label in parse_labels(labels) if label.key == NAMESPACE_LABEL)
        return next(found, "")
    except ValueError:
        return ""
