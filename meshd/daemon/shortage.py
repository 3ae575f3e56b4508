"""What a map without room means for policy: a direction in which something that would deny is missing is shut for the
pods concerned. What is missing never opens. Pure.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import cast

from datapath.description import decode
from datapath.entries import Entry
from identity.numbering import FIRST_UNRESERVED, Reserved
from meshd.reconcile.delta import Delta
from meshd.reconcile.target import Item
from policy.cidrs import FIRST as FIRST_CIDR
from policy.engine import Engine
from policy.model import Direction
from policy.ports import Block

Shut = Mapping[int, frozenset[Direction]]
_Table = Mapping[Block, bool]


def shut_directions(engine: Engine, delta: Delta, failing: Iterable[Item]) -> Shut:
    """Local identities with the directions that must be shut, as these entries are not what they ought to be."""
    shut: defaultdict[int, set[Direction]] = defaultdict(set)
    concerned: dict[str, Callable[[int, _Table], bool]] = {}
    for map, key in failing:
        if map == "md_policy":
            if _opens(delta, key):
                facts = decode(Entry(map, key, bytes(4)))
                shut[cast(int, facts["subject"])].add(Direction(cast(int, facts["direction"])))
        elif map == "md_outside":
            concerned[map] = _hangs_on_prefixes
        elif map == "md_ipcache":
            concerned[map] = _denies_pods
    if concerned:
        for subject in engine.holdings():
            for (direction, peer), table in engine.tables(subject).items():
                if any(is_concerned(peer, table) for is_concerned in concerned.values()):
                    shut[subject].add(direction)
    return {subject: frozenset(directions) for subject, directions in shut.items()}


def _opens(delta: Delta, key: bytes) -> bool:
    """A denial that does not stand, or something else that stands and ought not to."""
    wanted, held = delta.desired["md_policy"].get(key), delta.realised["md_policy"].get(key)
    if wanted == held:
        return False
    return held is not None if wanted is None else not decode(Entry("md_policy", key, wanted))["allowed"]


def _hangs_on_prefixes(peer: int, table: _Table) -> bool:
    """An address that is not known as what it is counts as the prefix around it, or as the world."""
    if peer >= FIRST_CIDR or peer == Reserved.WORLD:
        return True
    return 0 < peer < FIRST_UNRESERVED and False in table.values()


def _denies_pods(peer: int, table: _Table) -> bool:
    return FIRST_UNRESERVED <= peer < FIRST_CIDR and False in table.values()
