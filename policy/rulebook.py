"""What all rules that hold for one pod say about one peer. The entries that the datapath looks up and the explanation
of a verdict are both made from `contributions`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import NamedTuple

from identity.numbering import Reserved
from policy.model import Direction, PolicyRef, Rule
from policy.ports import EVERYTHING, Block, PortRange, enclosing, flatten
from policy.selector import Selector

ANYBODY = 0
"""In place of a peer's identity: entries that hold for everybody, also for who is not known."""

NamedPorts = Mapping[tuple[int, str], Set[int]]
"""Protocol and name → the numbers that pods of an identity give to it."""


class PlacedRule(NamedTuple):
    ref: PolicyRef
    rule: Rule


class Contribution(NamedTuple):
    """One block of ports that one rule allows or denies. `source` None: what holds without any policy."""

    source: PlacedRule | None
    deny: bool
    block: Block


@dataclass(frozen=True, slots=True)
class Verdict:
    """`closed`: no rule spoke, and the direction lets only pass what is allowed. `by`: the rules that decided."""

    allowed: bool
    closed: bool
    by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rulebook:
    """All rules that hold for a pod, by direction. Closed directions let only pass what a rule allows."""

    closed: frozenset[Direction]
    rules: Mapping[Direction, tuple[PlacedRule, ...]]

    def speaks(self, direction: Direction) -> bool:
        return direction in self.closed or bool(self.rules[direction])

    def peers(self, direction: Direction, selected: Callable[[Selector], Set[int]], named: Iterable[int]) -> set[int]:
        """Every peer for which there may be entries. `named`: identities with named ports."""
        peers: set[int] = {ANYBODY}
        if direction is Direction.INGRESS and direction in self.closed:
            peers.add(Reserved.HOST)
        for _, rule in self.rules[direction]:
            for selector in rule.peers or ():
                peers |= selected(selector)
            if rule.peers is None and direction is Direction.EGRESS and any(p.name for p in rule.ports or ()):
                peers.update(named)
        return peers

    def contributions(
        self,
        direction: Direction,
        peer: int,
        selected: Callable[[Selector], Set[int]],
        ports_of: Callable[[int], NamedPorts],
        own_ports: NamedPorts,
    ) -> Iterator[Contribution]:
        """What the rules say of `peer` alone; rules for everybody speak when it is ANYBODY."""
        if peer == Reserved.HOST and direction is Direction.INGRESS and direction in self.closed:
            yield Contribution(None, False, EVERYTHING)  # Kubernetes: a node may always reach its own pods
        for placed in self.rules[direction]:
            rule = placed.rule
            if rule.peers is not None and not any(peer in selected(selector) for selector in rule.peers):
                continue
            # At egress a name means what the peer calls so; a rule for everybody speaks of each such peer.
            for block in _blocks(rule, peer, own_ports if direction is Direction.INGRESS else ports_of(peer)):
                yield Contribution(placed, rule.deny, block)

    def verdict(self, direction: Direction, contributions: Iterable[Contribution], protocol: int, port: int) -> Verdict:
        """What becomes of one packet, with the rules that made it so. `contributions` of the peer and of ANYBODY."""
        around = set(enclosing(Block(protocol, port, 24)))
        heard = [c for c in contributions if c.block in around]
        for deny in (True, False):
            if by := tuple(dict.fromkeys(_name(c) for c in heard if c.deny is deny)):
                return Verdict(not deny, False, by)
        return Verdict(direction not in self.closed, direction in self.closed, ())


def entries(contributions: Iterable[Contribution]) -> dict[Block, bool]:
    """The table of one peer: block → allowed."""
    allow: list[Block] = []
    deny: list[Block] = []
    for contribution in contributions:
        (deny if contribution.deny else allow).append(contribution.block)
    return flatten(allow, deny)


def _blocks(rule: Rule, peer: int, named: NamedPorts) -> Iterator[Block]:
    if rule.ports is None:
        if rule.peers is not None or peer == ANYBODY:
            yield EVERYTHING
        return
    for port in rule.ports:
        if port.name:
            by_name = rule.direction is Direction.EGRESS or rule.peers is not None or peer == ANYBODY
            numbers = named.get((port.protocol, port.name), ()) if by_name else ()
            for number in numbers:
                yield from PortRange(port.protocol, number, number).blocks()
        elif rule.peers is not None or peer == ANYBODY:
            yield from _numbered(port)


def _numbered(port: PortRange) -> Iterator[Block]:
    if (port.first, port.last) == (0, 0xFFFF):
        yield Block(port.protocol, 0, 8)
    else:
        yield from port.blocks()


def _name(contribution: Contribution) -> str:
    if contribution.source is None:
        return "a node may always reach its own pods"
    return f"{contribution.source.ref} {contribution.source.rule.place}"
