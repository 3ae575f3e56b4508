"""What upstream's answers mean: entries of a list, commits of a watch, which store they come from. Pure."""

import hashlib
from collections.abc import Collection, Iterable
from typing import NamedTuple

from etcdproxy.encoding import decode_entry, encode_entry
from etcdproxy.history import Entry, History
from wire.keys import GENERATION
from wire.proto import kv_pb2, rpc_pb2

GENERATION_KEY = GENERATION.encode()
_DELETE = kv_pb2.Event.DELETE


class CommitData(NamedTuple):
    """The changes of one revision, as upstream tells them; None: deleted."""

    revision: int
    changes: list[tuple[bytes, Entry | None]]


class Goal:
    """A later revision, to know when a history that is listed at an older one has come that far.

    It is reached when the history has gone past it; or, where nothing is written any more, when every key changed
    in between stands at its revision and the number of keys agrees: then no key is missing and none too many.
    """

    def __init__(self, revision: int, changed: dict[bytes, int], total: int) -> None:
        self._revision = revision
        self._changed = changed
        self._total = total

    def is_reached(self, history: History) -> bool:
        """Whether the history shows the goal's keys; to be asked after every commit."""
        if history.revision >= self._revision:
            return True
        while self._changed:
            key, revision = next(iter(self._changed.items()))
            entry = history.get(key)
            if entry is None or entry.mod_revision < revision:
                return False
            del self._changed[key]
        return len(history) == self._total


def nearest_start(changed: Collection[int], oldest: int, most: int) -> int:
    """The oldest revision, `oldest` at least, after which no more than `most` keys were changed last.

    `changed` are the revisions after `oldest` at which keys were changed last.
    """
    if len(changed) <= most:
        return oldest
    return sorted(changed, reverse=True)[most]


def read_entry(kv: kv_pb2.KeyValue) -> Entry:
    return Entry(kv.mod_revision, encode_entry(kv))


def read_commits(events: Iterable[kv_pb2.Event]) -> list[CommitData]:
    """The events of whole answers, by revision."""
    commits: list[CommitData] = []
    for event in events:
        kv = event.kv
        if not commits or commits[-1].revision != kv.mod_revision:
            commits.append(CommitData(kv.mod_revision, []))
        commits[-1].changes.append((kv.key, None if event.type == _DELETE else read_entry(kv)))
    return commits


def cut_at_generation(commits: list[CommitData]) -> tuple[list[CommitData], list[CommitData]]:
    """The commits up to one that writes the generation, which may be the end of a history; and those after it."""
    for number, commit in enumerate(commits, 1):
        if any(key == GENERATION_KEY for key, _ in commit.changes):
            return commits[:number], commits[number:]
    return commits, []


def generation_of(history: History) -> bytes:
    """The value of `meshd/v1/generation`, empty if there is none: new when the history of the etcd was lost."""
    entry = history.get(GENERATION_KEY)
    return decode_entry(entry.field).value if entry else b""


def derive_cluster_id(etcd_cluster_id: int, generation: bytes) -> int:
    """The cluster id that all proxies of this etcd show, other than that of any other etcd or generation."""
    digest = hashlib.sha256(etcd_cluster_id.to_bytes(8, "big") + generation).digest()
    return int.from_bytes(digest[:8], "big") or 1


def is_same_history(header: rpc_pb2.ResponseHeader, *, cluster_id: int, revision: int) -> bool:
    """Whether what answers is the etcd heard before, and has not lost what it said."""
    return header.cluster_id == cluster_id and header.revision >= revision
