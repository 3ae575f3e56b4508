"""Numbers taken and given up in etcd: the create-only transactions behind the allocator's book."""

import logging
from collections.abc import Sequence

from identity.allocation import Allocator, IdentitiesExhausted
from meshd.agent.etcd.grace import Grace
from meshd.agent.etcd.ledger import MAX_TRANSACTION, Write
from meshd.agent.etcd.transactions import Fence
from meshd.agent.publish.publisher import Publisher
from wire import keys
from wire.codec import BadRecord, Scope, decode, encode
from wire.keys import Kind
from wire.local import Allocation

logger = logging.getLogger(__name__)

#: One operation is left for the question who leads.
BATCH = MAX_TRANSACTION - 1


class Numbers:
    """Keeps allocator and publisher in step with `meshd/v1/identities/`. Calls must not overlap, nor a `compute`."""

    def __init__(self, fence: Fence, publisher: Publisher, identities: Allocator, scope: Scope, grace_s: float) -> None:
        self._fence = fence
        self._publisher = publisher
        self._identities = identities
        self._scope = scope
        self._unused = Grace(grace_s)
        self._prefix = keys.prefix(Kind.ALLOCATION, scope.cluster)

    async def settle(self, labels: Sequence[str]) -> None:
        """Takes numbers for the first of these label sets. Ask again for those that are still wanted after it."""
        proposals: dict[int, str] = {}
        for text in labels[:BATCH]:
            try:
                proposals[self._identities.propose(text)] = text
            except IdentitiesExhausted as error:
                self._publisher.refuse(text, str(error))
                logger.error("no identity for a pod", extra={"labels": text, "reason": error})
        records = {f"{self._prefix}{number}": encode(Allocation(text)) for number, text in proposals.items()}
        found = await self._fence.create(records) if records else {}
        if found:
            self._take_over(proposals, found)
            return
        for number, text in proposals.items():
            self._identities.settle(number, text)
        self._publisher.settled(proposals)

    def _take_over(self, proposals: dict[int, str], found: dict[str, bytes]) -> None:
        """These numbers were somebody else's already: for the same labels, or for others."""
        for key, value in found.items():
            number = int(key.removeprefix(self._prefix))
            self._identities.withdraw(proposals[number])
            self._identities.settle(number, self._labels(str(number), value))
            self._publisher.settled([number])

    def _labels(self, name: str, value: bytes) -> str:
        """Of an allocation as it stands in etcd; "" if it cannot be read: its number is taken all the same."""
        try:
            allocation = decode(Kind.ALLOCATION, name, value, self._scope)
        except BadRecord:
            return ""
        return allocation.labels if isinstance(allocation, Allocation) else ""

    async def free_unused(self, *, now: float) -> bool:
        """Gives up numbers that nobody has used for the grace time; whether there were any."""
        due = self._unused.due(self._publisher.unused(), now=now)
        for start in range(0, len(due), MAX_TRANSACTION):
            batch = due[start : start + MAX_TRANSACTION]
            await self._fence.write([Write(f"{self._prefix}{number}", None) for number in batch], 0)
            for number in batch:
                self._identities.free(number)
                self._publisher.freed(number)
        if due:
            logger.info("identities freed", extra={"numbers": len(due)})
        return bool(due)
