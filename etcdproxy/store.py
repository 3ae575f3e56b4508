"""Which etcd a proxy speaks for. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Store:
    """Which etcd the proxy speaks for, as it stands in every answer's header; and etcd's version."""

    cluster_id: int
    member_id: int
    raft_term: int
    version: str = ""
