"""Which of a service's backends get new connections: one function, that also says why, for `explain`.

A backend is healthy if it is active, or terminating and still serving. Affinity (ClusterMesh, wire contract § 4.4):

    affinity   own cluster's backends                       other clusters' backends
    none       all                                          all
    local      all                                          only if no own one is active
    remote     only if no remote one is healthy             all

Among those, terminating backends take new connections only if there is no active one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from globalsvc.annotations import Affinity
from wire.local import BackendState


@dataclass(frozen=True, slots=True)
class Choice:
    """Whether a backend is used, and the reason in words."""

    used: bool
    reason: str


_NOT_READY = Choice(False, "not ready")
_LAST_RESORT = Choice(False, "terminating, and others are active")
_PREFER_LOCAL = Choice(False, "affinity local, and this cluster has active backends")
_PREFER_REMOTE = Choice(False, "affinity remote, and another cluster has healthy backends")
_ACTIVE = Choice(True, "active")
_TERMINATING = Choice(True, "terminating, but there is no active one")


def select(backends: Sequence[tuple[bool, BackendState]], affinity: Affinity) -> list[Choice]:
    """A choice for each backend, given as (is of this cluster, state), in the same order."""
    own_active = any(own and state == "active" for own, state in backends)
    remote_healthy = any(not own and state != "not-ready" for own, state in backends)
    use_own = affinity is not Affinity.REMOTE or not remote_healthy
    use_remote = affinity is not Affinity.LOCAL or not own_active
    any_active = any(state == "active" and (use_own if own else use_remote) for own, state in backends)

    def choose(own: bool, state: BackendState) -> Choice:
        if state == "not-ready":
            return _NOT_READY
        if not (use_own if own else use_remote):
            return _PREFER_REMOTE if own else _PREFER_LOCAL
        if state == "active":
            return _ACTIVE
        return _LAST_RESORT if any_active else _TERMINATING

    return [choose(own, state) for own, state in backends]
