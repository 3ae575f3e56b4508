"""What a certificate of the mesh may be called: the kinds of leaves, their common names and the names they answer to.

Pure. The proxy's roles follow from these common names; a cluster name obeys the rule that Cilium has for it.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

DOMAIN = "mesh.cilium.io"
CLUSTER_NAME_MAX = 32  # characters, as Cilium
_CLUSTER_NAME = re.compile(r"([a-z0-9][-a-z0-9]*)?[a-z0-9]")
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")
_HOST_NAME_MAX = 253


class CertsError(Exception):
    """Something about certificates that its reader can put right: the message names thing, reason and remedy."""


class Kind(StrEnum):
    """What a leaf is for. All but `server` are client certificates, named after the role they have at the proxy."""

    SERVER = "server"
    REMOTE = "remote"
    LOCAL = "local"
    DAEMON = "daemon"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Leaf:
    """One leaf certificate: its kind and the cluster it belongs to.

    The remote kind alone may leave the cluster empty: the name `remote`, which old set-ups share among all clusters.
    """

    kind: Kind
    cluster: str

    def __post_init__(self) -> None:
        if self.cluster or self.kind is not Kind.REMOTE:
            check_cluster_name(self.cluster)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `<kind>-<cluster>`, for example `remote-cluster2`, or `remote`; raises CertsError."""
        kind, dash, cluster = text.partition("-")
        if kind not in list(Kind) or not (dash or kind == Kind.REMOTE):
            kinds = ", ".join(f"{known}-<cluster>" for known in Kind)
            raise CertsError(f"unknown leaf {text!r}: it must be one of {kinds}")
        return cls(Kind(kind), check_cluster_name(cluster) if dash else "")

    @property
    def common_name(self) -> str:
        if self.kind is Kind.SERVER:
            return server_name(self.cluster)
        return f"{self.kind}-{self.cluster}" if self.cluster else str(self.kind)

    @property
    def folder(self) -> str:
        """Name of the folder that holds this leaf's files."""
        return str(Kind.SERVER) if self.kind is Kind.SERVER else self.common_name


def server_name(cluster: str) -> str:
    """The name that readers expect in the certificate of this cluster's proxy."""
    return f"{cluster}.{DOMAIN}"


def check_cluster_name(name: str) -> str:
    """Returns the name, or raises CertsError if no cluster may be called that."""
    if len(name) > CLUSTER_NAME_MAX or not _CLUSTER_NAME.fullmatch(name):
        raise CertsError(
            f"invalid cluster name {name!r}: 1 to {CLUSTER_NAME_MAX} of a-z, 0-9 and '-', "
            "beginning and ending with a letter or digit"
        )
    return name


def check_host_name(name: str) -> str:
    """Returns the DNS name, or raises CertsError; a wildcard would let one cluster speak for another."""
    if len(name) > _HOST_NAME_MAX or not _HOST_NAME.fullmatch(name):
        raise CertsError(f"invalid DNS name {name!r}: give a full name without wildcard")
    return name


def kind_of(common_name: str) -> str:
    """The kind that a common name says, `other` if it is none of ours."""
    if common_name.endswith(f".{DOMAIN}"):
        return str(Kind.SERVER)
    kind = common_name.partition("-")[0]
    return kind if kind in list(Kind) else "other"
