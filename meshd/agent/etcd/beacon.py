"""The keys that say that this cluster is here, alive and complete: cluster-config, heartbeat, canaries.

They hang on a shorter lease than the records, so that when an agent dies these go first and no reader takes the end
of the records for deletes.
"""

from datetime import UTC, datetime

from wire import keys
from wire.codec import encode
from wire.keys import LOCAL_KINDS, SHARED_KINDS
from wire.records import Capabilities, ClusterConfig


def config_value(cluster_id: int, *, max_clusters: int) -> bytes:
    """What stands under `cilium/cluster-config/<cluster>`."""
    capabilities = Capabilities(synced_canaries=True, max_connected_clusters=max_clusters)
    return encode(ClusterConfig(id=cluster_id, capabilities=capabilities))


def canary_keys(cluster: str) -> list[str]:
    """One per kind of record, whether or not there is a record of that kind."""
    return [keys.canary(kind, cluster) for kind in (*SHARED_KINDS, *LOCAL_KINDS)]


def timestamp(now: datetime | None = None) -> bytes:
    """RFC 3339 in UTC, as ClusterMesh writes it."""
    return (now or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
