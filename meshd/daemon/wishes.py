"""What the merges give out: entries that are desired (or, with None, not any more), for the keys that changed."""

from collections.abc import Iterable

from datapath.entries import Entry
from meshd.reconcile.target import Item

Wishes = dict[Item, bytes | None]


def entries_as_wishes(entries: Iterable[Entry]) -> Wishes:
    """In the order of the entries."""
    return {(entry.map, entry.key): entry.value for entry in entries}
