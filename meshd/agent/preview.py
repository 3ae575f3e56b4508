"""What the agent would change in etcd, without changing it: the objects as they are now beside what etcd holds."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field

from identity.allocation import Allocator, IdentitiesExhausted
from meshd.agent.agent import Agent
from meshd.agent.etcd.holdings import Holdings, list_holdings
from meshd.agent.etcd.ledger import digest_of
from meshd.agent.etcd.ownership import check_ownership
from meshd.agent.publish.publisher import Publisher
from meshd.agent.report import degraded
from wire.codec import encode
from wire.keys import Kind
from wire.local import Allocation

#: How long the source may take to tell everything, s.
SOURCE_S = 60.0


class SourceSilent(Exception):
    """The source has not told everything in time."""


@dataclass(slots=True)
class Preview:
    """Keys by what would happen to them, and everything that is left out or cannot be read, as sentences."""

    added: dict[str, bytes] = field(default_factory=dict)
    changed: dict[str, bytes] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def document(self) -> dict[str, object]:
        """For JSON; values as text."""
        return {
            "added": {key: value.decode() for key, value in sorted(self.added.items())},
            "changed": {key: value.decode() for key, value in sorted(self.changed.items())},
            "removed": self.removed,
            "problems": self.problems,
        }

    def lines(self) -> list[str]:
        """As a diff: a sign and the key, with the new value."""
        signs = [("+", self.added), ("~", self.changed), ("-", dict.fromkeys(self.removed, b""))]
        lines = [
            (key, f"{sign} {key} {value.decode()}".rstrip()) for sign, keys in signs for key, value in keys.items()
        ]
        return [line for _, line in sorted(lines)]


async def preview(agent: Agent) -> Preview:
    """Of an agent that does not run. Raises EtcdUnavailable, NotOurs, SourceSilent."""
    config, desired = agent.config, agent.desired
    holdings = await list_holdings(agent.etcd, desired.ledger.prefixes, agent.scope)
    check_ownership(holdings.configs, cluster=config.cluster, cluster_id=config.cluster_id)
    desired.identities.restore(holdings.allocations)
    desired.publisher.restored()
    whole = await _read(agent)
    wanted = _compute(desired.publisher, desired.identities)
    problems = [str(problem) for problem in agent.source.problems]
    for entry in degraded(agent):
        problems += [f"{entry['where']}: {reason}" for reason in entry["reasons"]]
    found = _compare(wanted, holdings, desired.identities, problems)
    if not whole and found.removed:
        some = f"{len(found.removed)} keys of which nothing was read"
        found.problems.append(f"{some} stay until everything can be read: {found.removed[0]}, …")
        found.removed = []
    return found


async def _read(agent: Agent) -> bool:
    """Everything that the source has; whether it could read everything. Raises SourceSilent."""
    try:
        async with asyncio.timeout(SOURCE_S), aclosing(agent.source.changes()) as stream:
            async for changes in stream:
                agent.desired.publisher.mark(agent.state.apply(changes))
                if changes.synced:
                    return changes.whole
    except TimeoutError as error:
        reasons = "; ".join(str(problem) for problem in agent.source.problems) or "it has not told everything"
        raise SourceSilent(f"{agent.source.name}: {reasons}") from error
    raise SourceSilent(f"{agent.source.name}: it has ended")


def _compute(publisher: Publisher, identities: Allocator) -> dict[str, bytes]:
    """What etcd shall hold, with the numbers that the agent would ask for."""
    wanted: dict[str, bytes] = {}
    while publisher.is_dirty or publisher.wanted():
        for key, value in publisher.compute(1000).items():
            wanted.pop(key, None)
            if value is not None:
                wanted[key] = value
        for labels in publisher.wanted():
            try:
                number = identities.propose(labels)
            except IdentitiesExhausted as error:
                publisher.refuse(labels, str(error))
            else:
                identities.settle(number, labels)
                publisher.settled([number])
    return wanted


def _compare(wanted: dict[str, bytes], holdings: Holdings, identities: Allocator, problems: list[str]) -> Preview:
    found = Preview(problems=problems)
    for number, labels in identities.allocations().items():
        if number not in holdings.allocations:
            found.added[f"{Kind.ALLOCATION}/{number}"] = encode(Allocation(labels))
    for key, value in wanted.items():
        if key not in holdings.records:
            found.added[key] = value
        elif holdings.records[key][0] != digest_of(value):
            found.changed[key] = value
    found.removed = sorted(holdings.records.keys() - wanted.keys())
    return found
