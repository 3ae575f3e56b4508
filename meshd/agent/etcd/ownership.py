"""Whether an etcd is this cluster's to write: its state has room for one cluster, and one writer."""

from collections.abc import Mapping

from msgspec import UnsetType

from wire import keys
from wire.codec import BadRecord, decode_cluster_config
from wire.records import value_or


class NotOurs(Exception):
    """Another cluster, or the same with another ID, is published in this etcd; str(error) says what to do."""


def check_ownership(configs: Mapping[str, bytes], *, cluster: str, cluster_id: int) -> None:
    """Of all cluster-configs that stand in etcd, by cluster name. Copies of remote clusters are nobody's claim.

    Raises NotOurs.
    """
    for name, value in sorted(configs.items()):
        try:
            config = decode_cluster_config(value)
        except BadRecord:
            continue
        if value_or(config.capabilities.cached, False):
            continue
        key = keys.cluster_config(name)
        if name != cluster:
            raise NotOurs(
                f"this etcd belongs to cluster {name!r} ({key} stands in it), and an etcd has room for one: give "
                f"{cluster!r} an etcd of its own, or, if it was renamed, remove the old cluster's keys first"
            )
        if not isinstance(config.capabilities.service_exports_enabled, UnsetType):
            raise NotOurs(
                f"another program publishes {cluster!r} in this etcd ({key} says what only Cilium's own "
                "clustermesh-apiserver says): give the agent another etcd, or stop that program and delete the key"
            )
        if config.id != cluster_id:
            raise NotOurs(
                f"in this etcd {cluster!r} has the ID {config.id} ({key}), not {cluster_id}: give the agent the same "
                "ID, or, if the ID was changed on purpose, stop the old agent and delete the key first"
            )
