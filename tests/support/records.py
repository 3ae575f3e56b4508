"""What a cluster's agent would have written: keys and values of a cluster's etcd, built in one line each."""

from ipaddress import ip_network

from wire.codec import encode
from wire.keys import HEARTBEAT, LOCAL_KINDS, SHARED_KINDS, Kind, canary, cluster_config, record
from wire.labels import CLUSTER_LABEL, format_labels
from wire.local import BackendState, LocalBackend, LocalService, ServicePort
from wire.records import CIDR, IP, Capabilities, ClusterConfig, L4Addr, Label, Node, NodeAddress, Service

GLOBAL = {"service.cilium.io/global": "true"}
Records = dict[str, str]


def cluster(name: str, cluster_id: int, *, max_clusters: int = 255) -> Records:
    """Configuration, heartbeat and all canaries."""
    capabilities = Capabilities(synced_canaries=True, max_connected_clusters=max_clusters)
    config = ClusterConfig(id=cluster_id, capabilities=capabilities)
    records = {cluster_config(name): encode(config).decode(), HEARTBEAT: "2026-01-01T00:00:00Z"}
    return records | {canary(kind, name): "2026-01-01T00:00:00Z" for kind in (*SHARED_KINDS, *LOCAL_KINDS)}


def node(cluster: str, cluster_id: int, name: str, address: str, cidr: str, *, tunnel: str = "") -> Records:
    value = Node(
        name=name,
        cluster=cluster,
        cluster_id=cluster_id,
        addresses=[NodeAddress("InternalIP", address)],
        ipv4_cidr=CIDR.of(ip_network(cidr)),
        annotations={"meshd.io/tunnel": tunnel} if tunnel else None,
    )
    return {record(Kind.NODE, cluster, name): encode(value).decode()}


def ip(cluster: str, address: str, host: str, identity: int) -> Records:
    return {record(Kind.IP, cluster, address): encode(IP(ip=address, host_ip=host, id=identity)).decode()}


def identity(cluster: str, number: int, **labels: str) -> Records:
    own = [Label(name, value) for name, value in sorted(labels.items())]
    return {record(Kind.IDENTITY, cluster, str(number)): format_labels([*own, Label(CLUSTER_LABEL, cluster)])}


def service(cluster: str, cluster_id: int, name: str, *backends: str, port: int = 8080) -> Records:
    """A shared service as the others see it."""
    namespace, _, short = name.partition("/")
    value = Service(
        cluster=cluster,
        cluster_id=cluster_id,
        namespace=namespace,
        name=short,
        frontends={},
        backends={address: {"http": L4Addr("TCP", port)} for address in backends},
        shared=True,
    )
    return {record(Kind.SERVICE, cluster, name): encode(value).decode()}


def local_service(
    cluster: str, name: str, frontend: str, *backends: str, port: int = 8080, state: BackendState = "active"
) -> Records:
    """A global service as its own cluster's daemons see it."""
    namespace, _, short = name.partition("/")
    value = LocalService(
        namespace=namespace,
        name=short,
        annotations=GLOBAL,
        cluster_ips=[frontend],
        ports=[ServicePort(name="http", port=80)],
        backends=[LocalBackend(ip=address, ports={"http": L4Addr("TCP", port)}, state=state) for address in backends],
    )
    return {record(Kind.LOCAL_SERVICE, cluster, name): encode(value).decode()}
