"""What etcd shall hold beside what it holds, and in which order the difference is written.

Pure, and incremental: a key costs something only when it changes. `etcd` here means the agent's own prefixes.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice

from wire import keys
from wire.keys import Kind

#: The kinds in the order of their puts; deletes go the other way round. An identity stands before the ip that uses it.
ORDER: tuple[Kind, ...] = (Kind.IDENTITY, Kind.NODE, Kind.IP, Kind.SERVICE, Kind.LOCAL_SERVICE, Kind.POLICY)

#: Operations that etcd takes in one transaction, by default.
MAX_TRANSACTION = 128


@dataclass(frozen=True, slots=True)
class Write:
    """One put, or one delete if the value is None."""

    key: str
    value: bytes | None


class Digest(bytes):
    """Stands for a value that was listed: enough to see whether it is the one that is wanted."""

    __slots__ = ()


def digest_of(value: bytes) -> Digest:
    return Digest(blake2b(value, digest_size=16).digest())


class Ledger:
    """One etcd of one cluster. Protocol of use: `hold` what was listed; `want`; `take` a round, write it, `written`.

    What is held and was never wanted is not deleted before `complete` was called: it may only not have been heard of.
    """

    def __init__(self, cluster: str) -> None:
        self._prefixes = {keys.prefix(kind, cluster): kind for kind in ORDER}
        self._desired: dict[str, bytes] = {}
        self._odd: dict[str, bytes] = {}  # what etcd holds where it is not what is desired
        self._missing: set[str] = set()  # what is desired and etcd does not hold
        self._puts: dict[Kind, dict[str, None]] = {kind: {} for kind in ORDER}
        self._deletes: dict[Kind, dict[str, None]] = {kind: {} for kind in ORDER}
        self._counts = dict.fromkeys(ORDER, 0)
        self._complete = False
        self._taken_back: set[str] = set()  # only until it is complete

    @property
    def prefixes(self) -> list[str]:
        """The prefixes that are the ledger's own."""
        return list(self._prefixes)

    def hold(self, held: Mapping[str, bytes]) -> None:
        """This, and nothing else, stands in etcd under our lease (b"" for what stands there under another one).

        A value may be given as its digest.
        """
        self._odd.clear()
        self._missing.clear()
        self._counts = dict.fromkeys(ORDER, 0) | Counter(map(self._kind, held))
        for pending in (*self._puts.values(), *self._deletes.values()):
            pending.clear()
        for key in held.keys() | self._desired.keys():
            self._compare(key, held.get(key))

    def found(self, key: str, value: bytes | None) -> None:
        """Somebody else has put or deleted a key of ours (b"": under a lease that is not ours)."""
        self._counts[self._kind(key)] += (value is not None) - (self._held(key) is not None)
        self._compare(key, value)

    def owns(self, key: str) -> bool:
        """Whether it is under one of the ledger's prefixes."""
        return key.startswith(tuple(self._prefixes))

    def want(self, changes: Mapping[str, bytes | None]) -> None:
        """These keys shall have these values; None: shall not be there."""
        for key, value in changes.items():
            held = self._held(key)
            if value is not None:
                self._desired[key] = value
                self._taken_back.discard(key)
            elif self._desired.pop(key, None) is not None and not self._complete:
                self._taken_back.add(key)
            self._compare(key, held)

    def complete(self) -> None:
        """Everything that is wanted was said: from now on what is held and not wanted is deleted."""
        if not self._complete:
            self._complete = True
            self._taken_back.clear()
            for key in self._odd.keys() - self._desired.keys():
                self._compare(key, self._odd[key])

    def take(self, limit: int) -> list[Write]:
        """The next round of writes, [] if none is left. It must be `written` before the next one is taken.

        Everything in one round, in order, if that is little enough for one transaction; else up to `limit` writes of
        one kind, which may be sent in any order.
        """
        if self.pending <= MAX_TRANSACTION:
            limit = MAX_TRANSACTION
            puts = [Write(key, self._desired[key]) for kind in ORDER for key in _pop(self._puts[kind], limit)]
            gone = [Write(key, None) for kind in reversed(ORDER) for key in _pop(self._deletes[kind], limit)]
            return puts + gone
        for kind in ORDER:
            if self._puts[kind]:
                return [Write(key, self._desired[key]) for key in _pop(self._puts[kind], limit)]
        for kind in reversed(ORDER):
            if self._deletes[kind]:
                return [Write(key, None) for key in _pop(self._deletes[kind], limit)]
        return []

    def written(self, write: Write) -> None:
        """etcd has confirmed it. What is wanted by now may be something else again."""
        self.found(write.key, write.value)

    @property
    def pending(self) -> int:
        """How many keys differ."""
        return sum(map(len, self._puts.values())) + sum(map(len, self._deletes.values()))

    def count(self) -> dict[str, int]:
        """How many keys of each kind etcd holds."""
        return {str(kind): count for kind, count in self._counts.items()}

    def _held(self, key: str) -> bytes | None:
        if (odd := self._odd.get(key)) is not None:
            return odd
        return None if key in self._missing else self._desired.get(key)

    def _compare(self, key: str, held: bytes | None) -> None:
        """Etcd holds this under the key: what is to be done? Values that are as desired are kept once."""
        kind = self._kind(key)
        self._puts[kind].pop(key, None)
        self._deletes[kind].pop(key, None)
        self._odd.pop(key, None)
        self._missing.discard(key)
        desired = self._desired.get(key)
        if held is None:
            if desired is None:
                return
            self._missing.add(key)
        elif (digest_of(desired) if isinstance(held, Digest) and desired is not None else desired) == held:
            return
        else:
            self._odd[key] = held
        if desired is not None:
            self._puts[kind][key] = None
        elif self._complete or key in self._taken_back:
            self._deletes[kind][key] = None

    def _kind(self, key: str) -> Kind:
        return next(kind for prefix, kind in self._prefixes.items() if key.startswith(prefix))


def _pop(pending: dict[str, None], limit: int) -> list[str]:
    taken = list(islice(pending, limit))
    for key in taken:
        del pending[key]
    if not pending:
        pending.clear()  # else what was deleted is walked over at every later call
    return taken
