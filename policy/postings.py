"""Who has which label. Most labels of a large cluster belong to one identity only: it stands there without a set."""

from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)
Pairs = Iterable[tuple[str, str]]
"""Keys and values of labels."""


class _Several(set[T]):
    """More than one; told apart from the one that may be anything."""


class Postings(Generic[T]):
    """By key, then by value: the one who has it, or the set of those."""

    def __init__(self) -> None:
        self._by_key: dict[str, dict[str, T | _Several[T]]] = {}

    def add(self, who: T, labels: Pairs) -> None:
        for key, value in labels:
            by_value = self._by_key.setdefault(key, {})
            known = by_value.setdefault(value, who)
            if isinstance(known, _Several):
                known.add(who)
            elif known != who:
                by_value[value] = _Several((known, who))

    def discard(self, who: T, labels: Pairs) -> None:
        for key, value in labels:
            by_value = self._by_key.get(key, {})
            known = by_value.get(value)
            if isinstance(known, _Several):
                known.discard(who)
                if len(known) == 1:
                    (by_value[value],) = known
            elif known == who:
                del by_value[value]
                if not by_value:
                    del self._by_key[key]

    def find(self, key: str, value: str) -> Iterable[T]:
        """Who has this label."""
        found = self._by_key.get(key, {}).get(value)
        if found is None:
            return ()
        return found if isinstance(found, _Several) else (found,)

    def find_any(self, key: str) -> Iterator[T]:
        """Who has a label of this key; each once, as nobody has two."""
        for found in self._by_key.get(key, {}).values():
            if isinstance(found, _Several):
                yield from found
            else:
                yield found
