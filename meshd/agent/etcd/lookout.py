"""Changes of the agent's keys that it has not made itself: told apart by the revisions of its own transactions.

Pure. An event may come before the answer to the transaction that caused it, so nothing is judged meanwhile.
"""

from collections.abc import Callable
from dataclasses import dataclass

from wire import keys

#: From the cluster-configs over the state and the canaries to our own part; copies of other clusters stand before it.
WATCHED = (keys.CLUSTER_CONFIG_PREFIX, keys.LOCAL_PREFIX)


class Disturbed(Exception):
    """Somebody has changed what everything rests on: all is listed and compared again."""


@dataclass(frozen=True, slots=True)
class Change:
    """One event of a watch. `value` None: the key is gone."""

    key: str
    value: bytes | None
    lease: int
    revision: int


class Lookout:
    """`strange` is called when there is something to `take`."""

    def __init__(self, strange: Callable[[], None]) -> None:
        self._call = strange
        self._under_way = self._passed = 0
        self._own: set[int] = set()
        self._seen: list[Change] = []
        self._strange: dict[str, Change] = {}

    def begin(self) -> None:
        """A transaction of ours is sent."""
        self._under_way += 1

    def end(self, revision: int) -> None:
        """It was answered; 0: it has changed nothing, or nobody knows."""
        self._under_way -= 1
        if revision:
            self._own.add(revision)
        self._judge()

    def is_own(self, revision: int) -> bool:
        """A transaction of ours made it, as far as is known yet."""
        return revision in self._own

    @property
    def is_strange(self) -> bool:
        """There is something to take."""
        return bool(self._strange)

    def passed(self, revision: int) -> None:
        """The watch has told of everything before this revision."""
        self._passed = revision
        self._judge()

    def saw(self, change: Change) -> None:
        """The watch has told of it; in the order of revisions, and `passed` follows."""
        self._seen.append(change)

    def take(self) -> dict[str, Change]:
        """What others have made of our keys since the last call, as far as we have not written it again."""
        strange, self._strange = self._strange, {}
        return strange

    def _judge(self) -> None:
        if self._under_way:
            return
        for change in self._seen:
            self._strange.pop(change.key, None)
            if change.revision not in self._own:
                self._strange[change.key] = change
        self._seen.clear()
        self._own = {revision for revision in self._own if revision >= self._passed}
        if self._strange:
            self._call()
