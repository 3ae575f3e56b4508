"""All policies of a cluster, all identities of the mesh, and the pods of one node: gives the entries of each local
identity, incrementally. A new identity costs the selectors that may match it and the entries that it gets.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from identity.numbering import Reserved
from policy.cidrs import CidrNumbers
from policy.model import Direction, Policy, PolicyRef
from policy.ports import Block
from policy.rulebook import ANYBODY, Contribution, NamedPorts, PlacedRule, Rulebook, Verdict, entries
from policy.selection import Selection
from policy.selector import IPNetwork, Labels, Selector, cidr_labels, reserved_labels


class EntryKey(NamedTuple):
    """`subject` is the identity of pods of this node, `peer` that of the other side, or ANYBODY."""

    subject: int
    direction: Direction
    peer: int
    block: Block


class Holding(NamedTuple):
    """What holds for pods of an identity: the closed directions, and a number that is another one with other entries.

    The number is made of the entries alone, so that it is the same after a restart.
    """

    closed: frozenset[Direction]
    revision: int


@dataclass(slots=True)
class _Subject:
    book: Rulebook
    revision: int = 0
    tables: dict[tuple[Direction, int], dict[Block, bool]] = field(default_factory=dict)


@dataclass(slots=True)
class Update:
    """What changed: entries (allowed, or None: gone), subjects (None: no policy holds for them any more), and the
    numbers of prefixes (None: gone).
    """

    entries: dict[EntryKey, bool | None] = field(default_factory=dict)
    subjects: dict[int, Holding | None] = field(default_factory=dict)
    cidrs: dict[IPNetwork, int | None] = field(default_factory=dict)


class Engine:
    """`set_*` mark, `compute` works off what is marked."""

    def __init__(self) -> None:
        self.policies: dict[PolicyRef, Policy] = {}
        self.cidrs = CidrNumbers()
        self.peers = Selection()
        self._holders = Selection()  # local identities, by the policies' own selectors
        self._rules_with: defaultdict[Selector, set[PolicyRef]] = defaultdict(set)
        self._held_by: defaultdict[Selector, set[PolicyRef]] = defaultdict(set)
        self._present: set[int] = set()
        self._named: dict[int, NamedPorts] = {}
        self._subjects: dict[int, _Subject] = {}
        self._dirty_subjects: set[int] = set()
        self._dirty_pairs: defaultdict[int, set[int]] = defaultdict(set)
        self._cidr_changes: dict[IPNetwork, int | None] = {}
        for reserved in Reserved:
            if reserved is not Reserved.UNKNOWN:
                self.peers.put(reserved, reserved_labels(reserved))

    def set_policy(self, ref: PolicyRef, policy: Policy | None) -> None:
        """The policy says this now; None: it is gone."""
        old = self.policies.pop(ref, None)
        if policy is not None:
            self.policies[ref] = policy
        if old == policy:
            return
        if policy is not None:
            self._enlist(ref, policy)
        if old is not None:
            self._strike(ref, old, policy)
        self._change_networks(old, policy)

    def set_identity(self, identity: int, labels: Labels | None) -> None:
        """An identity of any cluster has these labels now; None: there is no such identity."""
        self._mark_peers(identity, self.peers.put(identity, labels))
        if identity in self._present:
            self._place(identity)

    def set_named_ports(self, identity: int, ports: NamedPorts) -> None:
        """The names that pods of this identity give to ports."""
        if self._named.get(identity, {}) == ports:
            return
        self._named.pop(identity, None)
        if ports:
            self._named[identity] = ports
        for subject in self._subjects:
            self._dirty_pairs[subject].add(identity)
        if identity in self._subjects:
            self._dirty_subjects.add(identity)

    def set_present(self, identity: int, present: bool) -> None:
        """Whether this node has pods of the identity."""
        if present == (identity in self._present):
            return
        (self._present.add if present else self._present.discard)(identity)
        self._place(identity)

    def compute(self) -> Update:
        """Everything that changed since the last call."""
        update = Update(cidrs=self._cidr_changes)
        self._cidr_changes = {}
        for subject in self._dirty_subjects:
            self._compute_subject(subject, update)
        for subject, peers in self._dirty_pairs.items():
            if subject in self._subjects and subject not in self._dirty_subjects:
                self._compute_peers(subject, self._subjects[subject], peers, update)
        self._dirty_subjects.clear()
        self._dirty_pairs.clear()
        return update

    @property
    def is_dirty(self) -> bool:
        return bool(self._dirty_subjects or self._dirty_pairs or self._cidr_changes)

    def rulebook(self, identity: int) -> Rulebook:
        """What holds for pods with this identity, on this node or not."""
        labels = self.peers.labels.get(identity, {})
        refs = [
            (ref, section)
            for ref, policy in sorted(self.policies.items())
            for section in policy.sections
            if section.subject.matches(labels)
        ]
        closed = frozenset(direction for _, section in refs for direction in section.closes)
        rules = {
            direction: tuple(
                PlacedRule(ref, rule) for ref, section in refs for rule in section.rules if rule.direction is direction
            )
            for direction in Direction
        }
        return Rulebook(closed, rules)

    def contributions(self, identity: int, book: Rulebook, direction: Direction, peer: int) -> list[Contribution]:
        """What the rules of `identity` say of one peer."""
        own = self._named.get(identity, {})
        return list(book.contributions(direction, peer, self.peers.identities, self._ports_of, own))

    def explain(self, identity: int, direction: Direction, peer: int, protocol: int, port: int) -> Verdict:
        """The verdict on a packet between a pod of `identity` and `peer`, and the rules that make it."""
        state = self._subjects.get(identity) if identity not in self._dirty_subjects else None
        book = state.book if state else self.rulebook(identity)
        heard = self.contributions(identity, book, direction, ANYBODY)
        if peer != ANYBODY:
            heard += self.contributions(identity, book, direction, peer)
        return book.verdict(direction, heard, protocol, port)

    def table(self) -> dict[EntryKey, bool]:
        """All entries as they were computed last."""
        return {
            key: state.tables[key.direction, key.peer][key.block]
            for subject, state in self._subjects.items()
            for key in _keys(subject, state)
        }

    def holds(self, identity: int) -> bool:
        """Whether a policy holds for pods of this identity here, as of the last `compute`."""
        return identity in self._subjects

    def holding(self, identity: int) -> Holding | None:
        """What holds for this identity here, as of the last `compute`."""
        state = self._subjects.get(identity)
        return Holding(state.book.closed, state.revision) if state else None

    def tables(self, identity: int) -> Mapping[tuple[Direction, int], Mapping[Block, bool]]:
        """Direction and peer → block → allowed, of a local identity, as of the last `compute`."""
        return self._subjects[identity].tables

    def holdings(self) -> dict[int, Holding]:
        """Local identities that a policy holds for, as of the last `compute`."""
        return {identity: Holding(state.book.closed, state.revision) for identity, state in self._subjects.items()}

    def _ports_of(self, identity: int) -> NamedPorts:
        return self._named.get(identity, {})

    def _change_networks(self, old: Policy | None, new: Policy | None) -> None:
        used = self.cidrs.use(new.networks if new else ())
        gone = self.cidrs.release(old.networks if old else ())
        for network, number in used.items():
            self._cidr_changes[network] = number
            self.set_identity(number, cidr_labels(network))
        for network, number in gone.items():
            self._cidr_changes[network] = None
            self.set_identity(number, None)

    def _enlist(self, ref: PolicyRef, policy: Policy) -> None:
        for section in policy.sections:
            self._holders.add(section.subject)
            self._held_by[section.subject].add(ref)
            self._dirty_subjects |= self._holders.identities(section.subject)
        for selector in _selectors(policy):
            self.peers.add(selector)
            self._rules_with[selector].add(ref)

    def _strike(self, ref: PolicyRef, old: Policy, new: Policy | None) -> None:
        for section in old.sections:
            self._dirty_subjects |= self._holders.identities(section.subject)
        subjects = {section.subject for section in old.sections}
        kept = {section.subject for section in new.sections} if new else set()
        _forget(ref, subjects - kept, self._held_by, self._holders)
        selectors = set(_selectors(old))
        _forget(ref, selectors.difference(_selectors(new) if new else ()), self._rules_with, self.peers)

    def _place(self, identity: int) -> None:
        """A local identity came, went or has other labels: other policies may hold for it."""
        labels = self.peers.labels.get(identity) if identity in self._present else None
        if self._holders.put(identity, labels) or identity in self._subjects:
            self._dirty_subjects.add(identity)

    def _mark_peers(self, identity: int, selectors: Iterable[Selector]) -> None:
        for selector in selectors:
            for ref in self._rules_with[selector]:
                for section in self.policies[ref].sections:
                    for subject in self._holders.identities(section.subject):
                        self._dirty_pairs[subject].add(identity)

    def _compute_subject(self, identity: int, update: Update) -> None:
        book = self.rulebook_of_present(identity)
        if book is None:
            if (state := self._subjects.pop(identity, None)) is not None:
                update.subjects[identity] = None
                update.entries.update(dict.fromkeys(_keys(identity, state)))
            return
        state = self._subjects.setdefault(identity, _Subject(book))
        state.book = book
        peers: set[int] = {peer for _, peer in state.tables}
        for direction in Direction:
            peers |= book.peers(direction, self.peers.identities, self._named)
        self._compute_peers(identity, state, peers, update)

    def rulebook_of_present(self, identity: int) -> Rulebook | None:
        """None: no policy holds for pods of this identity, or there are none on this node."""
        if identity not in self._present or identity not in self.peers.labels:
            return None
        book = self.rulebook(identity)
        return book if any(map(book.speaks, Direction)) else None

    def _compute_peers(self, identity: int, state: _Subject, peers: Set[int], update: Update) -> None:
        for peer in peers:
            for direction in Direction:
                key = direction, peer
                table = entries(self.contributions(identity, state.book, direction, peer))
                before = state.tables.pop(key, {})
                if table:
                    state.tables[key] = table
                if table != before:
                    state.revision ^= _digest(key, before) ^ _digest(key, table)
                    _compare(identity, key, before, table, update)
        update.subjects[identity] = Holding(state.book.closed, state.revision)


def _selectors(policy: Policy) -> list[Selector]:
    return [selector for section in policy.sections for rule in section.rules for selector in rule.peers or ()]


def _forget(
    ref: PolicyRef,
    selectors: Iterable[Selector],
    users: dict[Selector, set[PolicyRef]],
    selection: Selection,
) -> None:
    for selector in selectors:
        users[selector].discard(ref)
        if not users[selector]:
            del users[selector]
            selection.remove(selector)


def _keys(subject: int, state: _Subject) -> Iterator[EntryKey]:
    for (direction, peer), table in state.tables.items():
        for block in table:
            yield EntryKey(subject, direction, peer, block)


def _digest(key: tuple[Direction, int], table: Mapping[Block, bool]) -> int:
    """Hashes of tuples of numbers are the same in every process."""
    digest = 0
    for block, allowed in table.items():
        digest ^= hash((*key, *block, allowed)) & 0xFFFF_FFFF_FFFF_FFFF
    return digest


def _compare(
    subject: int,
    key: tuple[Direction, int],
    before: Mapping[Block, bool],
    after: Mapping[Block, bool],
    update: Update,
) -> None:
    for block in before.keys() - after.keys():
        update.entries[EntryKey(subject, *key, block)] = None
    for block, allowed in after.items():
        if before.get(block) is not allowed:
            update.entries[EntryKey(subject, *key, block)] = allowed
