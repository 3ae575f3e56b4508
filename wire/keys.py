"""Every etcd key: how it is built, which interval a prefix covers, how a key is read back.

Layouts (ClusterMesh): a cluster's own etcd holds its state under `cilium/state/`; a copy of another cluster's state
(made by a kvstoremesh or a relay) stands under `cilium/cache/`, where identities and ips are scoped by cluster too.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

HEARTBEAT = "cilium/.heartbeat"
CLUSTER_CONFIG_PREFIX = "cilium/cluster-config/"
SYNCED_PREFIX = "cilium/synced/"
LOCAL_PREFIX = "meshd/v1/"
GENERATION = "meshd/v1/generation"
LEADER = "meshd/v1/leader"
LOCAL_SYNCED_PREFIX = "meshd/v1/synced/"

MAX_CLUSTER_NAME = 32
_CLUSTER_NAME = re.compile(r"([a-z0-9][-a-z0-9]*)?[a-z0-9]")


class Layout(StrEnum):
    """Where a cluster's state stands: in its own etcd, or copied into another's."""

    STATE = "cilium/state"
    CACHE = "cilium/cache"


class Kind(StrEnum):
    """A kind of record, by the path element that names it."""

    NODE = "nodes"
    SERVICE = "services"
    IDENTITY = "identities"
    IP = "ip"
    LOCAL_SERVICE = "meshd/v1/services"
    POLICY = "meshd/v1/policies"
    ALLOCATION = "meshd/v1/identities"


#: What a cluster shows to the others, in the order in which it is published: an identity before the ip that uses it.
SHARED_KINDS = (Kind.IDENTITY, Kind.NODE, Kind.IP, Kind.SERVICE)
#: What only the cluster's own daemons may read.
LOCAL_KINDS = (Kind.LOCAL_SERVICE, Kind.POLICY, Kind.ALLOCATION)


class BadKey(ValueError):
    """A key that is none of ours; str(error) says why."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key taken apart. `cluster` is "" where the layout does not scope the kind by cluster."""

    kind: Kind
    layout: Layout
    cluster: str
    name: str


def is_cluster_name(name: str) -> bool:
    """ClusterMesh's rule: 1 to 32 characters of a-z, 0-9 and "-", with no "-" at either end."""
    return len(name) <= MAX_CLUSTER_NAME and _CLUSTER_NAME.fullmatch(name) is not None


def prefix_end(prefix: bytes) -> bytes:
    """The exclusive end of the interval of all keys that start with `prefix`; b"\\0" (no end) if there is none above.

    Trailing 0xff bytes are dropped before the last byte is raised, as etcd's clients do.
    """
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b"\0"


def interval(prefix: str) -> tuple[bytes, bytes]:
    """`[start, end)` of a prefix as etcd's `key` and `range_end`."""
    start = prefix.encode()
    return start, prefix_end(start)


def cluster_config(cluster: str) -> str:
    return CLUSTER_CONFIG_PREFIX + cluster


def prefix(kind: Kind, cluster: str, layout: Layout = Layout.STATE) -> str:
    """The prefix, ending in "/", under which all records of one kind of one cluster stand."""
    if kind in LOCAL_KINDS:
        return f"{kind}/"
    if kind is Kind.IDENTITY:
        scope = "id/" if layout is Layout.STATE else f"{cluster}/id/"
    elif kind is Kind.IP:
        scope = "default/" if layout is Layout.STATE else f"{cluster}/"
    else:
        scope = f"{cluster}/"
    return f"{layout}/{kind}/v1/{scope}"


def record(kind: Kind, cluster: str, name: str, layout: Layout = Layout.STATE) -> str:
    """The key of one record; `name` is the part below the prefix, `<namespace>/<name>` for services."""
    return prefix(kind, cluster, layout) + name


def canary(kind: Kind, cluster: str, layout: Layout = Layout.STATE) -> str:
    """The key that says that all records of this kind are there."""
    if kind in LOCAL_KINDS:
        return LOCAL_SYNCED_PREFIX + kind.removeprefix(LOCAL_PREFIX)
    return f"{SYNCED_PREFIX}{cluster}/{layout}/{kind}/v1"


def parse(key: str) -> Key:
    """The reverse of `record`. Raises BadKey for anything else."""
    for kind in LOCAL_KINDS:
        if name := _below(key, f"{kind}/"):
            return Key(kind, Layout.STATE, "", name)
    for layout in Layout:
        for kind in SHARED_KINDS:
            if below := _below(key, f"{layout}/{kind}/v1/"):
                return _parse_shared(key, kind, layout, below)
    raise BadKey(f"{key!r} is not the key of a record")


def _parse_shared(key: str, kind: Kind, layout: Layout, below: str) -> Key:
    scope, _, name = below.partition("/")
    if layout is Layout.STATE and kind in (Kind.IDENTITY, Kind.IP):
        cluster = ""
        if scope != ("id" if kind is Kind.IDENTITY else "default"):
            raise BadKey(f"{key!r}: {scope!r} is not a scope of {kind}")
    else:
        cluster = scope
        if not is_cluster_name(cluster):
            raise BadKey(f"{key!r}: {cluster!r} is not a cluster name")
        if kind is Kind.IDENTITY:
            marker, _, name = name.partition("/")
            if marker != "id":
                raise BadKey(f"{key!r}: {marker!r} is not a scope of {kind}")
    if not name:
        raise BadKey(f"{key!r} names no record")
    return Key(kind, layout, cluster, name)


def _below(key: str, prefix: str) -> str:
    return key.removeprefix(prefix) if key.startswith(prefix) else ""
