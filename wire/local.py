"""Our own records under `meshd/v1/`: written by a cluster's agent for that cluster's daemons, shown to nobody else."""

from typing import Literal

from msgspec import Struct

from wire.records import PortMap

BackendState = Literal["active", "terminating", "not-ready"]


class LocalBackend(Struct, frozen=True, kw_only=True, gc=False):
    """A pod behind a service of this cluster. `ports` maps the service's port names to where the pod listens,
    `for_zones` are the slice's hints.
    """

    ip: str
    ports: PortMap
    state: BackendState
    node: str = ""
    zone: str = ""
    for_zones: list[str] = []


class ServicePort(Struct, frozen=True, kw_only=True, gc=False):
    """A port of the service's frontends."""

    name: str = ""
    protocol: str = "TCP"
    port: int


class LocalService(Struct, frozen=True, kw_only=True, gc=False):
    """`meshd/v1/services/<namespace>/<name>`: a global service of this cluster, shared or not, with all its backends.

    `annotations` are those that meshd reads, as they were read. `session_affinity_timeout_s` is 0 without ClientIP.
    """

    namespace: str
    name: str
    annotations: dict[str, str] = {}
    cluster_ips: list[str] = []
    ports: list[ServicePort] = []
    headless: bool = False
    session_affinity_timeout_s: int = 0
    internal_traffic_policy: str = "Cluster"
    external_traffic_policy: str = "Cluster"
    backends: list[LocalBackend] = []


class Allocation(Struct, frozen=True):
    """`meshd/v1/identities/<number>`: which label set has this number. Kept without a lease."""

    labels: str
