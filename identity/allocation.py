"""Which label set has which number: the book of `meshd/v1/identities/`, and which number to ask for next.

Pure. A number is a proposal until etcd has taken it with a create-only transaction (`settle`). Proposals follow from
the labels, so that two agents that race ask for the same number for the same labels, and a cluster that lost its etcd
mostly gets its old numbers back.
"""

from collections.abc import Mapping, Set
from hashlib import blake2b

#: ClusterMesh's oldest readers take local numbers from here on.
FIRST_LOCAL = 256


class IdentitiesExhausted(Exception):
    """Every number of the cluster is taken; str(error) says what to do."""


class Allocator:
    """The numbers of one cluster."""

    def __init__(self, numbers: range) -> None:
        self._numbers = numbers[FIRST_LOCAL:]
        self._labels: dict[int, str] = {}
        self._number: dict[str, int] = {}
        self._proposed: dict[str, int] = {}
        self._asked: set[int] = set()
        self._freed: dict[int, str] = {}  # the longest free first

    def __len__(self) -> int:
        """How many numbers are taken."""
        return len(self._labels)

    @property
    def capacity(self) -> int:
        return len(self._numbers)

    def number_of(self, labels: str) -> int | None:
        """The settled number of a label set."""
        return self._number.get(labels)

    def labels_of(self, number: int) -> str | None:
        return self._labels.get(number)

    def allocations(self) -> Mapping[int, str]:
        """Every settled number with its labels."""
        return self._labels

    def propose(self, labels: str) -> int:
        """A number to ask etcd for: the one the labels had, else the first free one from where their hash points.

        A number that was freed is given to other labels only when there is no other, because some cluster may still
        take it for the old ones. Asking again gives the same answer until it is settled. Raises IdentitiesExhausted.
        """
        if (number := self._number.get(labels) or self._proposed.get(labels)) is not None:
            return number
        number = self._free_number(labels)
        self._freed.pop(number, None)
        self._proposed[labels] = number
        self._asked.add(number)
        return number

    def _free_number(self, labels: str) -> int:
        size = len(self._numbers)
        first = int.from_bytes(blake2b(labels.encode(), digest_size=8).digest(), "big") % size
        for step in range(size):
            number = self._numbers[(first + step) % size]
            if number in self._labels or number in self._asked:
                continue
            if number not in self._freed or self._freed[number] == labels:
                return number
        if self._freed:
            return next(iter(self._freed))
        raise IdentitiesExhausted(
            f"all {size} identities of this cluster are taken: drop labels that differ from pod to pod from the "
            "identity (setting drop_labels), then free what is not used any more"
        )

    def settle(self, number: int, labels: str) -> None:
        """etcd holds this allocation."""
        self.withdraw(labels)
        self._freed.pop(number, None)
        self._labels[number] = labels
        known = self._number.get(labels)
        self._number[labels] = number if known is None else min(known, number)

    def withdraw(self, labels: str) -> None:
        """The proposal for these labels is void: somebody else has the number, or nobody needs it any more."""
        if (number := self._proposed.pop(labels, None)) is not None:
            self._asked.discard(number)

    def free(self, number: int) -> None:
        """etcd does not hold this allocation any more, because nobody needs it."""
        labels = self._labels.pop(number)
        self._freed[number] = labels
        if self._number.get(labels) == number:
            del self._number[labels]

    def restore(self, allocations: Mapping[int, str]) -> Set[str]:
        """Takes over what etcd holds in place of what was known; returns the labels whose number is now another.

        What etcd no longer holds is proposed again under its old number, as far as that is still free.
        """
        before = self._number
        self._labels, self._number, self._proposed, self._asked = {}, {}, {}, set()
        self._freed.clear()
        for number, labels in allocations.items():
            self.settle(number, labels)
        lost = {labels: number for labels, number in before.items() if labels not in self._number}
        self._proposed = {labels: number for labels, number in lost.items() if number not in self._labels}
        self._asked = set(self._proposed.values())
        return {labels for labels, number in before.items() if self._number.get(labels) != number}
