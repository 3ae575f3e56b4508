"""Which cluster has which ID: no two may have the same, and nobody ours."""

from identity.numbering import CLUSTER_LIMITS

LARGE = max(CLUSTER_LIMITS)
"""The other of the two sizes that a mesh can have; 255 is the usual one."""


class IdTaken(ValueError):
    """A cluster says an ID that it cannot have; str(error) names who has it."""


class Members:
    """The clusters that said their ID. An ID stays with its cluster until that one has left and nothing of it stands
    any more: who took it over before would be taken for the old one's pods.
    """

    def __init__(self, cluster: str, cluster_id: int, *, max_clusters: int) -> None:
        self.cluster = cluster
        self.cluster_id = cluster_id
        self.max_clusters = max_clusters
        self.ids: dict[str, int] = {cluster: cluster_id}
        self.leaving: dict[int, str] = {}
        """IDs that clusters gave up, by leaving or for another one, while something of them may still stand."""

    def agree(self, max_clusters: int) -> None:
        """What a cluster says of how many there may be, 0 if nothing: who numbers for 511 keeps fewer bits for each
        cluster's identities. As Cilium, one that numbers for 255 does not ask. Raises IdTaken.
        """
        if self.max_clusters == LARGE and max_clusters != LARGE:
            raise IdTaken(
                f"it numbers identities for {max_clusters or 255} clusters, we for {LARGE}: "
                "all of the mesh need the same max-connected-clusters"
            )

    def join(self, cluster: str, cluster_id: int) -> None:
        """Raises IdTaken."""
        if not 1 <= cluster_id <= self.max_clusters:
            raise IdTaken(f"its ID is {cluster_id}, it must be 1 to {self.max_clusters}")
        if cluster == self.cluster and cluster_id != self.cluster_id:
            raise IdTaken(f"it says ID {cluster_id}, this daemon was started with {self.cluster_id}: one is wrong")
        for other, taken in self.ids.items():
            if taken == cluster_id and other != cluster:
                raise IdTaken(f"its ID {cluster_id} is that of {other}: give one of the two another ID")
        if (before := self.leaving.get(cluster_id, cluster)) != cluster:
            raise IdTaken(f"its ID {cluster_id} was that of {before}, of which entries still stand: wait")
        self.leaving.pop(cluster_id, None)
        if (former := self.ids.get(cluster, cluster_id)) != cluster_id:
            self.leaving[former] = cluster
        self.ids[cluster] = cluster_id

    def leave(self, cluster: str) -> None:
        """Its ID is free after `release`."""
        if cluster != self.cluster and (left := self.ids.pop(cluster, None)) is not None:
            self.leaving[left] = cluster

    def release(self) -> None:
        """Nothing that goes by those IDs stands any more."""
        self.leaving.clear()

    def name_of(self, cluster_id: int) -> str:
        """The cluster with this ID, "" if nobody said that it is its own."""
        return next((name for name, taken in self.ids.items() if taken == cluster_id), "")

    def rank(self, cluster: str) -> tuple[int, ...]:
        """Who is believed first when several claim the same: this cluster, then the lower ID."""
        return (0,) if cluster == self.cluster else (1, self.ids.get(cluster, self.max_clusters + 1))
