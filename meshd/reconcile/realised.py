"""What a target holds, told by how it differs from what is desired: where it does not, it takes no memory. Pure."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping


class Held(Mapping[bytes, bytes]):
    """One map's entries as the target holds them. `desired` is shared with whoever changes it.

    `differs` has the held value (None: not there) of every key under which something else is desired; whoever changes
    a wish says so with `keep` first. So another thread may read meanwhile.
    """

    __slots__ = ("_desired", "differs")

    def __init__(self, desired: Mapping[bytes, bytes]) -> None:
        self._desired = desired
        self.differs: dict[bytes, bytes | None] = {}

    def keep(self, wanted: Mapping[bytes, bytes | None]) -> None:
        """These are about to be desired: what is held stays as it is."""
        desired, differs = self._desired, self.differs
        for key, value in wanted.items():
            if (before := desired.get(key)) != value and key not in differs:
                differs[key] = before

    def put(self, written: Mapping[bytes, bytes | None]) -> None:
        """This is held now (None: nothing)."""
        desired, differs = self._desired, self.differs
        for key, value in written.items():
            if desired.get(key) == value:
                differs.pop(key, None)
            else:
                differs[key] = value

    def replace(self, held: Mapping[bytes, bytes]) -> None:
        """All that is held now."""
        self.differs = {key: value for key, value in held.items() if self._desired.get(key) != value}
        self.differs.update((key, None) for key in self._desired if key not in held)

    def differing(self, keys: Iterable[bytes]) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
        """Those of the keys under which something else is desired than held: key, wish, what is held."""
        desired, differs = self._desired, self.differs
        for key in keys:
            if key not in differs:
                continue
            wanted, held = desired.get(key), differs[key]
            if wanted == held:
                del differs[key]
            else:
                yield key, wanted, held

    def __getitem__(self, key: bytes) -> bytes:
        desired = self._desired.get(key)  # first: a wish changes after its key was kept
        held = self.differs.get(key, desired)
        if held is None:
            raise KeyError(key)
        return held

    def __iter__(self) -> Iterator[bytes]:
        differs = self.differs
        yield from (key for key in self._desired if key not in differs)
        yield from (key for key, held in differs.items() if held is not None)

    def __len__(self) -> int:
        desired, differs = self._desired, self.differs
        more = sum(held is not None for held in differs.values())
        return len(desired) - sum(key in desired for key in differs) + more


class Realised(defaultdict[str, Held]):
    """By map; a map of which nothing is known yet is as desired there, which is: empty."""

    def __init__(self, desired: defaultdict[str, dict[bytes, bytes]]) -> None:
        super().__init__()
        self._desired: Callable[[str], dict[bytes, bytes]] = desired.__getitem__

    def __missing__(self, map: str) -> Held:
        held = self[map] = Held(self._desired(map))
        return held
