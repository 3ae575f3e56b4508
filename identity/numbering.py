"""Identity numbers (ClusterMesh): 24 bits, the cluster's ID on top, the cluster's own number below.

    255 clusters:  CCCCCCCC LLLLLLLL LLLLLLLL        511 clusters:  CCCCCCCC CLLLLLLL LLLLLLLL

All clusters of a mesh use the same split; no cluster needs to ask another for a number.
"""

from enum import IntEnum

IDENTITY_BITS = 24
FIRST_UNRESERVED = 256
CLUSTER_LIMITS = (255, 511)


class Reserved(IntEnum):
    """Numbers that mean the same in every cluster."""

    UNKNOWN = 0
    HOST = 1
    WORLD = 2
    UNMANAGED = 3
    HEALTH = 4
    INIT = 5
    REMOTE_NODE = 6
    KUBE_APISERVER = 7
    INGRESS = 8


def local_bits(max_clusters: int = 255) -> int:
    """How many bits are left for a cluster's own number. Raises ValueError for a limit that is neither 255 nor 511."""
    if max_clusters not in CLUSTER_LIMITS:
        raise ValueError(f"a mesh has at most 255 or 511 clusters, not {max_clusters}")
    return IDENTITY_BITS - max_clusters.bit_length()


def identity_range(cluster_id: int, *, max_clusters: int = 255) -> range:
    """The identities that are a cluster's to give. Raises ValueError for an ID that no cluster can have."""
    if not 0 <= cluster_id <= max_clusters:
        raise ValueError(f"a cluster ID is between 1 and {max_clusters}, not {cluster_id}")
    bits = local_bits(max_clusters)
    start = cluster_id << bits
    return range(start or FIRST_UNRESERVED, start + (1 << bits))


def cluster_of(identity: int, *, max_clusters: int = 255) -> int:
    """The ID of the cluster that gave this number; 0 for reserved ones and those of a cluster without ID."""
    return identity >> local_bits(max_clusters)
