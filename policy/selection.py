"""Which identities each selector selects, kept up to date: a new identity costs the selectors that it may match.

A selector waits under one label that all it selects must have (its pivot); identities are found by label likewise.
"""

from collections.abc import Iterable, Iterator, Set

from policy.postings import Postings
from policy.selector import Labels, Operator, Requirement, Selector


class Selection:
    """Identities with their labels, and selectors with what they select."""

    def __init__(self) -> None:
        self.labels: dict[int, Labels] = {}
        self.evaluations = 0
        """How often a selector was tried on an identity: the cost, for those who measure it."""
        self._selected: dict[Selector, set[int]] = {}
        self._waiting: Postings[Selector] = Postings()
        self._waiting_for_any: dict[str, set[Selector]] = {}
        """For any value of the label of that key."""
        self._anywhere: set[Selector] = set()
        self._by_label: Postings[int] = Postings()

    def __len__(self) -> int:
        return len(self._selected)

    def identities(self, selector: Selector) -> Set[int]:
        return self._selected[selector]

    def add(self, selector: Selector) -> None:
        if selector in self._selected:
            return
        pivot = selector.pivot()
        if pivot is None:
            self._anywhere.add(selector)
            candidates: Iterable[int] = self.labels
        else:
            self._wait(selector, pivot)
            candidates = set(self._found(pivot))
        self._selected[selector] = {i for i in candidates if self._matches(selector, self.labels[i])}

    def remove(self, selector: Selector) -> None:
        del self._selected[selector]
        self._anywhere.discard(selector)
        if (pivot := selector.pivot()) is not None:
            self._wait_no_more(selector, pivot)

    def _wait(self, selector: Selector, pivot: Requirement) -> None:
        if pivot.operator is Operator.IN:
            self._waiting.add(selector, ((pivot.key, value) for value in pivot.values))
        else:
            self._waiting_for_any.setdefault(pivot.key, set()).add(selector)

    def _wait_no_more(self, selector: Selector, pivot: Requirement) -> None:
        if pivot.operator is Operator.IN:
            self._waiting.discard(selector, ((pivot.key, value) for value in pivot.values))
            return
        waiting = self._waiting_for_any[pivot.key]
        waiting.discard(selector)
        if not waiting:
            del self._waiting_for_any[pivot.key]

    def _found(self, pivot: Requirement) -> Iterator[int]:
        """The identities that have what the pivot asks for."""
        if pivot.operator is Operator.IN:
            for value in pivot.values:
                yield from self._by_label.find(pivot.key, value)
        else:
            yield from self._by_label.find_any(pivot.key)

    def put(self, identity: int, labels: Labels | None) -> set[Selector]:
        """The identity has these labels now (None: it is gone); returns the selectors that it came to or left."""
        before = self.labels.pop(identity, None)
        if before == labels:
            if labels is not None:
                self.labels[identity] = labels
            return set()
        left = self._withdraw(identity, before) if before is not None else set()
        came = self._enter(identity, labels) if labels is not None else set()
        return left ^ came

    def _enter(self, identity: int, labels: Labels) -> set[Selector]:
        self.labels[identity] = labels
        matching = {selector for selector in self._candidates(labels) if self._matches(selector, labels)}
        for selector in matching:
            self._selected[selector].add(identity)
        self._by_label.add(identity, labels.items())
        return matching

    def _withdraw(self, identity: int, labels: Labels) -> set[Selector]:
        self._by_label.discard(identity, labels.items())
        left = {selector for selector in self._candidates(labels) if identity in self._selected[selector]}
        for selector in left:
            self._selected[selector].discard(identity)
        return left

    def _candidates(self, labels: Labels) -> set[Selector]:
        found = set(self._anywhere)
        for key, value in labels.items():
            found.update(self._waiting.find(key, value))
            if (waiting := self._waiting_for_any.get(key)) is not None:
                found |= waiting
        return found

    def _matches(self, selector: Selector, labels: Labels) -> bool:
        self.evaluations += 1
        return selector.matches(labels)
