"""From something that objects have in common to the names of those objects."""

from collections.abc import Collection, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

ObjectName = tuple[str, str]
"""Namespace and name; the namespace is "" for what has none."""


class Index(Generic[K]):
    """Sets of names by key. A key without names takes no memory.

    They are the keys of a dict, which takes less than half the memory of a set of the same size.
    """

    def __init__(self) -> None:
        self._names: dict[K, dict[ObjectName, None]] = {}

    def add(self, key: K, name: ObjectName) -> None:
        """Adding twice is adding once."""
        self._names.setdefault(key, {})[name] = None

    def discard(self, key: K, name: ObjectName) -> None:
        """Nothing happens if it is not there."""
        names = self._names.get(key)
        if names is None:
            return
        names.pop(name, None)
        if not names:
            del self._names[key]

    def names(self, key: K) -> Collection[ObjectName]:
        """The names under the key, in no order."""
        return self._names[key].keys() if key in self._names else ()
