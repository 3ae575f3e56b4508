"""The whole contract with something that holds entries in named maps: the kernel, or a fake that is stricter."""

from collections.abc import Iterable, Mapping
from typing import Protocol

Item = tuple[str, bytes]
"""A map and a key in it."""


class TargetError(Exception):
    """An operation on a map failed. Nothing is known about the other keys of the same call."""

    def __init__(self, map_name: str, operation: str, reason: str) -> None:
        super().__init__(f"{operation} {map_name}: {reason}")
        self.map = map_name
        self.operation = operation
        self.reason = reason


class TargetFull(TargetError):
    """No room for `rejected`; everything else of the same call was written, what is there is kept."""

    def __init__(self, map_name: str, rejected: Iterable[bytes]) -> None:
        super().__init__(map_name, "upsert", "the map is full")
        self.rejected = frozenset(rejected)


class Target(Protocol):
    """Idempotent operations. Raise TargetError, and nothing else that is not a bug."""

    def dump(self, map: str) -> dict[bytes, bytes]: ...

    def upsert(self, map: str, items: Mapping[bytes, bytes]) -> None:
        """In the order of the items."""

    def delete(self, map: str, keys: Iterable[bytes]) -> None:
        """A key that is absent is a success."""


class Shape(Protocol):
    """What the reconciler must know of the entries."""

    def rank(self, map: str, key: bytes) -> int:
        """Publish order: lower ones are written first and removed last."""

    def needs(self, map: str, key: bytes, value: bytes) -> Iterable[Item]:
        """The entries without which this one must not stand."""

    def is_brief(self, map: str) -> bool:
        """An operation takes microseconds and waits for nobody."""

    def describe(self, map: str, key: bytes) -> str:
        """The key for people."""
