"""Which identities each selector selects, kept up to date: a new identity costs the selectors that it may match.

A selector waits under one label that all it selects must have (its pivot); identities are found by label likewise.
"""

from collections import defaultdict
from collections.abc import Iterable, Set

from policy.selector import Labels, Operator, Requirement, Selector

_LabelValue = tuple[str, str | None]
"""A label's key and value; None: any value."""


class Selection:
    """Identities with their labels, and selectors with what they select."""

    def __init__(self) -> None:
        self.labels: dict[int, Labels] = {}
        self.evaluations = 0
        """How often a selector was tried on an identity: the cost, for those who measure it."""
        self._selected: dict[Selector, set[int]] = {}
        self._waiting: defaultdict[_LabelValue, set[Selector]] = defaultdict(set)
        self._anywhere: set[Selector] = set()
        self._by_label: defaultdict[_LabelValue, set[int]] = defaultdict(set)

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
            places = _places(pivot)
            for place in places:
                self._waiting[place].add(selector)
            candidates = set().union(*(self._by_label.get(place, ()) for place in places))
        self._selected[selector] = {i for i in candidates if self._matches(selector, self.labels[i])}

    def remove(self, selector: Selector) -> None:
        del self._selected[selector]
        self._anywhere.discard(selector)
        if (pivot := selector.pivot()) is not None:
            for place in _places(pivot):
                self._waiting[place].discard(selector)
                if not self._waiting[place]:
                    del self._waiting[place]

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
        for place in _places_of(labels):
            self._by_label[place].add(identity)
        return matching

    def _withdraw(self, identity: int, labels: Labels) -> set[Selector]:
        for place in _places_of(labels):
            self._by_label[place].discard(identity)
            if not self._by_label[place]:
                del self._by_label[place]
        left = {selector for selector in self._candidates(labels) if identity in self._selected[selector]}
        for selector in left:
            self._selected[selector].discard(identity)
        return left

    def _candidates(self, labels: Labels) -> set[Selector]:
        return self._anywhere.union(*(self._waiting.get(place, ()) for place in _places_of(labels)))

    def _matches(self, selector: Selector, labels: Labels) -> bool:
        self.evaluations += 1
        return selector.matches(labels)


def _places(pivot: Requirement) -> list[_LabelValue]:
    if pivot.operator is Operator.IN:
        return [(pivot.key, value) for value in pivot.values]
    return [(pivot.key, None)]


def _places_of(labels: Labels) -> list[_LabelValue]:
    return [place for key, value in labels.items() for place in ((key, value), (key, None))]
