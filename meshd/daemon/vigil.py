"""Looks at every cluster now and then: is it still there, are its nodes, has something of it come to be refused?
Acts on the mesh and tells the timeline.
"""

from collections.abc import Iterable
from typing import cast

from meshd.daemon.mesh import Mesh
from meshd.daemon.presence import PresenceState
from meshd.daemon.prober import Prober
from meshd.daemon.remote import Remote
from meshd.daemon.store import Store
from meshd.daemon.timeline import Timeline
from wire.keys import Kind
from wire.records import Node

_EVENTS = {PresenceState.FRESH: "fresh", PresenceState.STALE: "stale", PresenceState.WITHDRAWN: "withdrawn"}


class Vigil:
    """`look` once a second."""

    def __init__(self, store: Store, mesh: Mesh, timeline: Timeline) -> None:
        self._store, self._mesh, self._timeline = store, mesh, timeline
        self._aimed: dict[str, object] = {}
        self._answers: dict[str, bool | None] = {}
        self._refused: dict[tuple[str, Kind], frozenset[str]] = {}
        self._judged = 0
        """The quarantine's turn that was looked at."""

    def look(self, remotes: Iterable[Remote], prober: Prober | None, now: float) -> None:
        for remote in remotes:
            remote.look(now)
            if remote.is_local:
                remote.presence.judge(now, remote.allowance, answers=True)
                continue
            if prober is not None:
                self._aim(remote.cluster, prober)
            self._judge(remote, prober, now)
        self._tell_refused()

    def forget(self, cluster: str) -> None:
        self._aimed.pop(cluster, None)
        self._answers.pop(cluster, None)
        for key in [key for key in self._refused if key[0] == cluster]:
            del self._refused[key]

    def _judge(self, remote: Remote, prober: Prober | None, now: float) -> None:
        answers = prober.answers(remote.cluster) if prober else None
        if answers is False and self._answers.get(remote.cluster) is not False:
            remote.suspect()
        self._answers[remote.cluster] = answers
        if not remote.presence.judge(now, remote.allowance, answers=answers):
            return
        state = remote.presence.state
        if state is PresenceState.WITHDRAWN:
            self._mesh.withdraw(remote.cluster)
        else:
            self._mesh.welcome(remote.cluster)
        bad = state is not PresenceState.FRESH
        self._timeline.note(_EVENTS[state], remote.cluster, remote.presence.reason, bad=bad)

    def _aim(self, cluster: str, prober: Prober) -> None:
        state = self._store.clusters.get(cluster)
        if state is None or not (shelf := state.shelves.get(Kind.NODE)):
            return
        nodes, quarantine = self._mesh.nodes, self._mesh.suspicion.quarantine
        stand = (
            shelf.revision,
            len(shelf.records),
            quarantine.turn_of(cluster, Kind.NODE),
            nodes.direct_turn(cluster),
        )
        if self._aimed.get(cluster) != stand:
            self._aimed[cluster] = stand
            refused = set(quarantine.names(cluster, Kind.NODE))
            believed = [cast(Node, node) for name, node in shelf.records.items() if name not in refused]
            prober.aim(cluster, believed, nodes.direct(cluster))

    def _tell_refused(self) -> None:
        """A reason that was not there a second ago."""
        quarantine = self._mesh.suspicion.quarantine
        if quarantine.turn == self._judged:
            return
        self._judged = quarantine.turn
        seen = {(cluster, kind): quarantine.reasons(cluster, kind) for cluster, kind in quarantine.kinds()}
        for (cluster, kind), reasons in seen.items():
            for reason in reasons.keys() - self._refused.get((cluster, kind), frozenset()):
                self._timeline.note("quarantine", cluster, f"{reasons[reason]} {kind}: {reason}", bad=True)
        self._refused = {key: frozenset(reasons) for key, reasons in seen.items()}
