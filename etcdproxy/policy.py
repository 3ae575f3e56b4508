"""Who may read what: a peer's name → its role → the intervals it may read. Pure; no answer is made without asking here.

The roles and their intervals are ClusterMesh's (local, remote) and our own (daemon, admin). A request is allowed only
if its whole interval lies inside one granted interval.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Self

from wire.keys import CLUSTER_CONFIG_PREFIX, HEARTBEAT, SYNCED_PREFIX, cluster_config, interval, is_cluster_name


class Role(StrEnum):
    """What a peer is to the cluster that this proxy serves."""

    REMOTE = "remote"
    LOCAL = "local"
    DAEMON = "daemon"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Interval:
    """Keys from `start` up to, without, `end`; None: no end."""

    start: bytes
    end: bytes | None

    @classmethod
    def of_request(cls, key: bytes, range_end: bytes) -> Self:
        """The interval that etcd reads for `key` and `range_end`."""
        if not range_end:
            return cls(key, key + b"\0")
        return cls(key, None if range_end == b"\0" else range_end)

    @classmethod
    def of_prefix(cls, prefix: str) -> Self:
        return cls(*interval(prefix))

    def holds(self, key: bytes) -> bool:
        return self.start <= key and (self.end is None or key < self.end)

    def contains(self, other: "Interval") -> bool:
        """Whether no key of `other` lies outside. An interval that ends before it starts counts by its start."""
        if not self.holds(other.start):
            return False
        return self.end is None or (other.end is not None and other.end <= self.end)

    @property
    def is_empty(self) -> bool:
        return self.end is not None and self.end <= self.start


@dataclass(frozen=True, slots=True)
class Users:
    """Names → roles as a users file gives them. `roles` None: the names themselves say it."""

    roles: Mapping[str, Role] | None = None
    denied: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of the proxy of one cluster."""

    cluster: str
    users: Users = field(default_factory=Users)

    def role_of(self, name: str) -> Role | None:
        """The role of the peer with this certificate name; None: it may read nothing."""
        if name in self.users.denied:
            return None
        if self.users.roles is not None:
            return self.users.roles.get(name)
        return _NAMED_ROLES.get(name) or self._role_by_cluster(name)

    def granted(self, name: str) -> tuple[Interval, ...]:
        """All that the peer may read."""
        role = self.role_of(name)
        return grants(role, self.cluster) if role else ()

    def _role_by_cluster(self, name: str) -> Role | None:
        role, _, cluster = name.partition("-")
        if role == Role.REMOTE and is_cluster_name(cluster):
            return Role.REMOTE
        # The others are insiders: with one CA for all clusters only the cluster's own may come in by that door.
        if role in list(Role) and cluster == self.cluster:
            return Role(role)
        return None


def allows(granted: tuple[Interval, ...], wanted: Interval) -> bool:
    """Whether the whole wanted interval lies inside one of the granted ones."""
    return any(interval.contains(wanted) for interval in granted)


def grants(role: Role, cluster: str) -> tuple[Interval, ...]:
    """What a role may read at the proxy of `cluster`."""
    heartbeat = Interval.of_prefix(HEARTBEAT)
    if role is Role.REMOTE:
        return (
            heartbeat,
            Interval.of_prefix("cilium/state/"),
            Interval.of_request(cluster_config(cluster).encode(), b""),
            Interval.of_prefix(f"{SYNCED_PREFIX}{cluster}/"),
        )
    if role is Role.LOCAL:
        return (
            heartbeat,
            Interval.of_prefix("cilium/cache/"),
            Interval.of_prefix(CLUSTER_CONFIG_PREFIX),
            Interval.of_prefix(SYNCED_PREFIX),
        )
    if role is Role.DAEMON:
        return Interval.of_prefix("cilium/"), Interval.of_prefix("meshd/")
    return (Interval(b"", None),)


_NAMED_ROLES: Mapping[str, Role] = MappingProxyType({"remote": Role.REMOTE})
