"""What the maps held at the start, and who has to be heard before something of it may go. Pure."""

from collections.abc import Set

from identity.numbering import cluster_of
from meshd.daemon.backends import Endpoint
from meshd.daemon.members import Members
from meshd.daemon.restoration import Restoration, peer_identity
from meshd.daemon.store import Store
from wire.keys import LOCAL_KINDS, SHARED_KINDS, Kind


class Inheritance:
    """Asked until `all_heard`. `withdrawn` are the clusters that are lost; whoever has the set changes it."""

    def __init__(self, restored: Restoration, store: Store, members: Members, withdrawn: Set[str]) -> None:
        self._restored, self._store, self._members, self._withdrawn = restored, store, members, withdrawn
        self._own = members.cluster
        self._judged: object = None

    def has_moved(self, *, waiting: bool) -> bool:
        """Whether something that decides here, or `waiting`, is not as it was the last time."""
        clusters = self._store.clusters
        heard = [
            frozenset(name for name, state in clusters.items() if state.synced(kind))
            for kind in (*SHARED_KINDS, *LOCAL_KINDS)
        ]
        now = (heard, frozenset(clusters), frozenset(self._withdrawn), waiting)
        before, self._judged = self._judged, now
        return now != before

    def all_heard(self) -> bool:
        return all(map(self._everybody, SHARED_KINDS)) and self._store.synced(self._own, LOCAL_KINDS)

    def services_heard(self) -> bool:
        return self._store.synced(self._own, [Kind.LOCAL_SERVICE])

    def nodes_heard(self) -> bool:
        """All that may say a prefix."""
        return self._everybody(Kind.NODE) and self._everybody(Kind.IP)

    def pods_heard(self) -> bool:
        """Those of this node."""
        return self._store.synced(self._own, [Kind.NODE, Kind.IP])

    def may_stay(self, endpoint: Endpoint) -> bool:
        """A backend stays until the cluster that offers it has been heard."""
        owner = self._members.name_of(self._restored.owner(endpoint[0]))
        if owner in self._withdrawn:
            return False
        if owner == self._own:
            return not self.services_heard()
        if owner in self._store.clusters:
            return not self._store.synced(owner, [Kind.SERVICE])
        return not self._everybody(Kind.SERVICE)

    def address_may_go(self, value: bytes) -> bool:
        """An address goes when the cluster that its identity belongs to has been heard, and does not say it."""
        owner = self._members.name_of(cluster_of(peer_identity(value), max_clusters=self._members.max_clusters))
        if owner in self._store.clusters:
            return self._store.synced(owner, [Kind.IP])
        return self._everybody(Kind.IP)

    def _everybody(self, kind: Kind) -> bool:
        return all(state.synced(kind) for state in self._store.clusters.values())
