"""Kubernetes objects as typed, slotted structs of only the fields that meshd uses.

Not a model of the Kubernetes API: unknown fields are ignored, a missing field has Kubernetes' default.
"""

from enum import StrEnum
from typing import NamedTuple

import msgspec
from msgspec import Struct

OUR_SLICE_MANAGER = "endpointslice-mesh.meshd.io"
MESH_SLICE_MANAGERS = ("endpointslice-mesh-controller.cilium.io", OUR_SLICE_MANAGER)
MANAGED_BY_LABEL = "endpointslice.kubernetes.io/managed-by"
SERVICE_NAME_LABEL = "kubernetes.io/service-name"
HEADLESS_LABEL = "service.kubernetes.io/headless"
ZONE_LABEL = "topology.kubernetes.io/zone"


class ObjectKind(StrEnum):
    """The kinds that the agent reads, by the name that Kubernetes gives them."""

    NAMESPACE = "Namespace"
    NODE = "Node"
    POD = "Pod"
    SERVICE = "Service"
    ENDPOINT_SLICE = "EndpointSlice"
    NETWORK_POLICY = "NetworkPolicy"
    CILIUM_POLICY = "CiliumNetworkPolicy"
    CILIUM_CLUSTERWIDE_POLICY = "CiliumClusterwideNetworkPolicy"


class Ref(NamedTuple):
    """Which object: its kind, its namespace ("" if it has none) and its name."""

    kind: ObjectKind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class _Fields(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """Names as Kubernetes spells them. They hold no cycles, so the garbage collector need not look at them."""


class Metadata(_Fields, frozen=True):
    name: str = ""
    namespace: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class PodMetadata(_Fields, frozen=True):
    """Without annotations: there are many pods, and none of theirs is used."""

    name: str = ""
    namespace: str = ""
    labels: dict[str, str] = {}
    deletion_timestamp: str = ""


class PolicyMetadata(_Fields, frozen=True):
    """Nothing else is used; what is wrong with it must not cost the policy."""

    name: str = ""
    namespace: str = ""


class Namespace(_Fields, frozen=True):
    metadata: Metadata


class NodeAddress(_Fields, frozen=True):
    type: str = ""
    address: str = ""


class NodeSpec(_Fields, frozen=True):
    pod_cidr: str = msgspec.field(name="podCIDR", default="")
    pod_cidrs: list[str] = msgspec.field(name="podCIDRs", default_factory=list)


class NodeStatus(_Fields, frozen=True):
    addresses: list[NodeAddress] = []


class Node(_Fields, frozen=True):
    metadata: Metadata
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class ContainerPort(_Fields, frozen=True):
    name: str = ""
    container_port: int = 0
    protocol: str = "TCP"


class Container(_Fields, frozen=True):
    """`restart_policy` is "Always" for an init container that stays (a sidecar)."""

    ports: tuple[ContainerPort, ...] = ()
    restart_policy: str = ""


class PodSpec(_Fields, frozen=True):
    node_name: str = ""
    service_account_name: str = ""
    host_network: bool = False
    hostname: str = ""
    subdomain: str = ""
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()


class PodIP(_Fields, frozen=True):
    ip: str = ""


class PodCondition(_Fields, frozen=True):
    type: str = ""
    status: str = ""


class PodStatus(_Fields, frozen=True):
    phase: str = ""
    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: tuple[PodIP, ...] = msgspec.field(name="podIPs", default=())
    host_ip: str = msgspec.field(name="hostIP", default="")
    conditions: tuple[PodCondition, ...] = ()


class Pod(_Fields, frozen=True):
    metadata: PodMetadata
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def is_ready(self) -> bool:
        """Kubernetes' Ready condition."""
        return any(condition.type == "Ready" and condition.status == "True" for condition in self.status.conditions)

    @property
    def is_terminating(self) -> bool:
        """It is being deleted."""
        return bool(self.metadata.deletion_timestamp)

    @property
    def is_finished(self) -> bool:
        """All its containers have ended for good: its addresses are no longer its own."""
        return self.status.phase in ("Succeeded", "Failed")

    @property
    def addresses(self) -> list[str]:
        """Its IPs as written, the primary one first."""
        return [entry.ip for entry in self.status.pod_ips if entry.ip] or [self.status.pod_ip][
            : bool(self.status.pod_ip)
        ]

    @property
    def ports(self) -> list[ContainerPort]:
        """The ports of all containers that stay."""
        sidecars = [container for container in self.spec.init_containers if container.restart_policy == "Always"]
        return [port for container in [*self.spec.containers, *sidecars] for port in container.ports]


class ServicePort(_Fields, frozen=True):
    name: str = ""
    protocol: str = "TCP"
    port: int = 0
    target_port: int | str = 0


class ClientIPConfig(_Fields, frozen=True):
    timeout_seconds: int = 10800


class SessionAffinityConfig(_Fields, frozen=True):
    client_ip: ClientIPConfig = msgspec.field(name="clientIP", default=ClientIPConfig())


class ServiceSpec(_Fields, frozen=True):
    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    cluster_ips: list[str] = msgspec.field(name="clusterIPs", default_factory=list)
    ip_families: list[str] = []
    ports: list[ServicePort] = []
    selector: dict[str, str] = {}
    publish_not_ready_addresses: bool = False
    session_affinity: str = "None"
    session_affinity_config: SessionAffinityConfig = SessionAffinityConfig()
    internal_traffic_policy: str = "Cluster"
    external_traffic_policy: str = "Cluster"


class Service(_Fields, frozen=True):
    metadata: Metadata
    spec: ServiceSpec = ServiceSpec()

    @property
    def cluster_ips(self) -> list[str]:
        """Its ClusterIPs as written; none if it is headless or has not been given one."""
        written = self.spec.cluster_ips or [self.spec.cluster_ip]
        return [] if self.is_headless else [address for address in written if address]

    @property
    def is_headless(self) -> bool:
        return "None" in (*self.spec.cluster_ips, self.spec.cluster_ip) or HEADLESS_LABEL in self.metadata.labels


class EndpointConditions(_Fields, frozen=True):
    """None: not said, which readers take as Kubernetes documents it."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ForZone(_Fields, frozen=True):
    name: str = ""


class EndpointHints(_Fields, frozen=True):
    for_zones: tuple[ForZone, ...] = ()


class SliceEndpoint(_Fields, frozen=True):
    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions = EndpointConditions()
    hostname: str = ""
    node_name: str = ""
    zone: str = ""
    hints: EndpointHints = EndpointHints()


class SlicePort(_Fields, frozen=True):
    name: str = ""
    protocol: str = "TCP"
    port: int | None = None


class EndpointSlice(_Fields, frozen=True):
    metadata: Metadata
    address_type: str = "IPv4"
    endpoints: tuple[SliceEndpoint, ...] = ()
    ports: list[SlicePort] = []

    @property
    def service(self) -> str:
        """The name of the service it belongs to, "" if none."""
        return self.metadata.labels.get(SERVICE_NAME_LABEL, "")

    @property
    def is_imported(self) -> bool:
        """Written by a mesh from another cluster's service: not this cluster's to publish."""
        return self.metadata.labels.get(MANAGED_BY_LABEL) in MESH_SLICE_MANAGERS

    @property
    def is_ours(self) -> bool:
        """Written by an agent of meshd's, from another cluster's service."""
        return self.metadata.labels.get(MANAGED_BY_LABEL) == OUR_SLICE_MANAGER


class Policy(_Fields, frozen=True):
    """A network policy. Not judged here: the daemons close what an invalid one selects.

    `rules` is JSON of its `spec` and `specs` as they were given; equal ones are equal bytes.
    """

    metadata: PolicyMetadata
    rules: bytes = b"{}"


KubernetesObject = Namespace | Node | Pod | Service | EndpointSlice | Policy
