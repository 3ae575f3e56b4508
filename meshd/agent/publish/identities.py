"""What the numbers are for: which addresses use one, and which namespace its labels name."""

from collections import Counter
from collections.abc import Iterable, Mapping, Set

from wire.labels import NAMESPACE_LABEL, parse_labels


class IdentityUse:
    """Which numbers are used by some address."""

    def __init__(self) -> None:
        self._number: dict[str, int] = {}
        self._users: Counter[int] = Counter()
        self._unused: set[int] = set()

    @property
    def unused(self) -> Set[int]:
        """Numbers that exist and that no address uses."""
        return self._unused

    def exist(self, numbers: Iterable[int]) -> None:
        """There are these numbers, too."""
        self._unused.update(number for number in numbers if not self._users[number])

    def exist_only(self, numbers: Iterable[int]) -> None:
        """There are these numbers and no others."""
        self._unused.clear()
        self.exist(numbers)

    def gone(self, number: int) -> None:
        self._unused.discard(number)

    def use(self, ip: str, number: int | None) -> None:
        """The address uses this number now, or none."""
        before = self._number.pop(ip, None)
        if number is not None:
            self._number[ip] = number
            self._users[number] += 1
            self._unused.discard(number)
        if before is not None:
            self._users[before] -= 1
            if not self._users[before]:
                del self._users[before]
                self._unused.add(before)


class IdentityNamespaces:
    """The numbers of every namespace: what is not shown of a namespace includes its identities."""

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
