"""Which of the backends that fit a frontend get new connections: one function, that also says why, for `explain`.

What is not ready is out. Then each rule in turn may leave some out, but never all that are there, and never all active
ones while there are any; so no preference makes a black hole. Only internalTrafficPolicy Local may leave none
(Kubernetes' meaning).

    internalTrafficPolicy   Local: this node's only
    drained clusters        out
    affinity                local: this cluster's, if one is active (min-healthy: if enough are)
                            remote: other clusters', if one is healthy, that is active, or terminating and serving
    cluster priority        those of the first cluster that has some; clusters that are not listed come last
    zone hints              those for this node's zone, if every one carries hints
    cluster weights         a cluster of weight 0 is out
    terminating             out
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from globalsvc.annotations import Affinity
from globalsvc.backend import Offer
from globalsvc.preferences import DEFAULT_WEIGHT, NO_PREFERENCES, Preferences

WEIGHT_SCALE = 1 << 20


@dataclass(frozen=True, slots=True)
class Choice:
    """Whether a backend is used, and the reason in words."""

    used: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Rules:
    """What one service asks for, and where this node is."""

    affinity: Affinity = Affinity.NONE
    preferences: Preferences = NO_PREFERENCES
    node_only: bool = False
    """internalTrafficPolicy Local."""
    node: str = ""
    zone: str = ""
    spilling: bool | None = None
    """Whether min-healthy let other clusters' backends in before; None: not known."""


@dataclass(frozen=True, slots=True)
class Selection:
    """A choice for each offer, in the same order, and whether min-healthy lets other clusters' backends in."""

    choices: list[Choice]
    spilling: bool = False


ACTIVE = Choice(True, "active")
_TERMINATING = Choice(True, "terminating, but there is no active one")
_NOT_READY = Choice(False, "not ready")
_LAST_RESORT = Choice(False, "terminating, and others are active")
_PREFER_LOCAL = Choice(False, "affinity local, and this cluster has active backends")
_ENOUGH_LOCAL = Choice(False, "affinity local, and this cluster has as many active backends as min-healthy asks for")
_PREFER_REMOTE = Choice(False, "affinity remote, and another cluster has healthy backends")
_OTHER_NODE = Choice(False, "internalTrafficPolicy Local, and it is not on this node")
_DRAINED = Choice(False, "its cluster is drained")
_OTHER_ZONE = Choice(False, "zone hints: it is for other zones")
_NO_WEIGHT = Choice(False, "its cluster has weight 0")

_Keep = Callable[[Offer], bool]


def select(offers: Sequence[Offer], rules: Rules) -> Selection:
    """Who gets new connections, of all offers that fit one frontend."""
    choices = {index: _NOT_READY for index, offer in enumerate(offers) if offer.state == "not-ready"}
    left = [index for index in range(len(offers)) if index not in choices]
    spilling = False
    if rules.node_only:
        keep = _on_node(rules.node)
        choices.update({index: _OTHER_NODE for index in left if not keep(offers[index])})
        left = [index for index in left if keep(offers[index])]
    else:
        spilling = _is_spilling(offers, rules)
        for keep, choice in _preferences(offers, left, rules, spilling):
            kept = [index for index in left if keep(offers[index])]
            if len(kept) < len(left) and _suffice(offers, kept, left):
                choices.update({index: choice for index in left if not keep(offers[index])})
                left[:] = kept
    active = [index for index in left if offers[index].state == "active"]
    if active and len(active) < len(left):
        choices.update(dict.fromkeys(set(left).difference(active), _LAST_RESORT))
    choices.update(dict.fromkeys(active or left, ACTIVE if active else _TERMINATING))
    return Selection([choices[index] for index in range(len(offers))], spilling)


def compute_weights(used: Sequence[Offer], preferences: Preferences) -> tuple[int, ...]:
    """How often each is chosen, relative to the others, so that each cluster has its share; empty: all the same."""
    if not preferences.weights:
        return ()
    clusters = Counter(offer.backend.cluster for offer in used)
    if len(clusters) < 2:
        return ()
    shares = {
        cluster: max(1, preferences.weights.get(cluster, DEFAULT_WEIGHT) * WEIGHT_SCALE // count)
        for cluster, count in clusters.items()
    }
    return tuple(shares[offer.backend.cluster] for offer in used)


def _preferences(
    offers: Sequence[Offer], left: list[int], rules: Rules, spilling: bool
) -> Iterator[tuple[_Keep, Choice]]:
    """The rules that leave some out, in their order. `left` shrinks meanwhile."""
    wanted = rules.preferences
    if wanted.drained:
        yield lambda offer: offer.backend.cluster not in wanted.drained, _DRAINED
    if rules.affinity is Affinity.LOCAL and not spilling and _any_active_local(offers, left):
        yield _is_local, _ENOUGH_LOCAL if wanted.min_healthy else _PREFER_LOCAL
    elif rules.affinity is Affinity.REMOTE:
        yield _is_remote, _PREFER_REMOTE
    if wanted.priority:
        yield _first_cluster([offers[index] for index in left], wanted.priority)
    if wanted.zone_hints and rules.zone and all(offers[index].for_zones for index in left):
        yield lambda offer: rules.zone in (offer.for_zones or ()), _OTHER_ZONE
    if wanted.weights:
        yield lambda offer: wanted.weights.get(offer.backend.cluster, DEFAULT_WEIGHT) > 0, _NO_WEIGHT


def _suffice(offers: Sequence[Offer], kept: list[int], left: list[int]) -> bool:
    """Something is left, and something active if there was."""
    if any(offers[index].state == "active" for index in kept):
        return True
    return bool(kept) and not any(offers[index].state == "active" for index in left)


def _is_spilling(offers: Sequence[Offer], rules: Rules) -> bool:
    if rules.affinity is not Affinity.LOCAL or rules.preferences.min_healthy is None:
        return False
    states = [offer.state for offer in offers if offer.is_local]
    expected = len(states) - states.count("terminating")
    before = True if rules.spilling is None else rules.spilling
    return not rules.preferences.min_healthy.is_enough(states.count("active"), expected, spilling=before)


def _first_cluster(left: list[Offer], priority: tuple[str, ...]) -> tuple[_Keep, Choice]:
    rank = {cluster: number for number, cluster in enumerate(priority)}
    active = [offer for offer in left if offer.state == "active"] or left
    best = min((rank.get(offer.backend.cluster, len(rank)) for offer in active), default=0)
    reason = f"cluster priority: {priority[best] if best < len(rank) else 'others'} comes first and has backends"
    return lambda offer: rank.get(offer.backend.cluster, len(rank)) == best, Choice(False, reason)


def _any_active_local(offers: Sequence[Offer], left: list[int]) -> bool:
    return any(offers[index].is_local and offers[index].state == "active" for index in left)


def _on_node(node: str) -> _Keep:
    return lambda offer: offer.is_local and bool(node) and offer.node == node


def _is_local(offer: Offer) -> bool:
    return offer.is_local


def _is_remote(offer: Offer) -> bool:
    return not offer.is_local
