"""The records that clusters show to each other, field for field as ClusterMesh's writers put them into etcd.

STABLE: real Cilium clusters read and write these. A field with a default may be missing on the wire (Go's zero
value); a field that is UNSET is left out when written (Go's omitempty). Addresses are text in canonical form, ports
are numbers, masks are base64 of the raw bytes.
"""

import base64
import binascii
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TypeVar

from msgspec import UNSET, Struct, UnsetType, field

from wire.addresses import parse_address

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network
T = TypeVar("T")
PARSED_MAX = 4096
"""A record is parsed several times in a row by those that plan with it."""


def value_or(value: T | UnsetType | None, default: T) -> T:
    """What a field holds, or `default` where the writer left it out or wrote null."""
    return default if value is None or isinstance(value, UnsetType) else value


class Capabilities(Struct, frozen=True, kw_only=True, rename="camel"):
    """What a cluster's writer can do."""

    synced_canaries: bool | UnsetType = UNSET
    cached: bool | UnsetType = UNSET
    max_connected_clusters: int | UnsetType = UNSET
    service_exports_enabled: bool | UnsetType | None = UNSET
    endpoint_slices_export_mode: str | UnsetType = UNSET


class ClusterConfig(Struct, frozen=True, kw_only=True):
    """`cilium/cluster-config/<cluster>`: the first thing a reader asks for."""

    id: int = 0
    capabilities: Capabilities = Capabilities()


class NodeAddress(Struct, frozen=True):
    """One address of a node. Type: InternalIP, ExternalIP, CiliumInternalIP, Hostname, …"""

    type: str = field(name="Type", default="")
    ip: str = field(name="IP", default="")


class CIDR(Struct, frozen=True):
    """A prefix as Go writes net.IPNet: address text and base64 mask."""

    ip: str = field(name="IP", default="")
    mask: str | None = field(name="Mask", default=None)

    @classmethod
    def of(cls, network: IPNetwork) -> "CIDR":
        return cls(str(network.network_address), base64.b64encode(network.netmask.packed).decode())

    def network(self) -> IPNetwork:
        """The prefix. Raises ValueError if address or mask is none."""
        return _network(self.ip, self.mask or "")


@lru_cache(PARSED_MAX)
def _network(ip: str, mask_text: str) -> IPNetwork:
    address = parse_address(ip)
    try:
        mask = base64.b64decode(mask_text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"mask {mask_text!r} is not base64") from error
    if len(mask) * 8 != address.max_prefixlen:
        raise ValueError(f"mask {mask_text!r} does not fit {ip}")
    bits = int.from_bytes(mask, "big")
    length = bits.bit_count()
    if bits != ((1 << length) - 1) << (address.max_prefixlen - length):
        raise ValueError(f"mask {mask_text!r} has holes")
    return ip_network((address, length), strict=False)


class Node(Struct, frozen=True, kw_only=True):
    """`cilium/state/nodes/v1/<cluster>/<name>`."""

    name: str = field(name="Name", default="")
    cluster: str = field(name="Cluster", default="")
    addresses: list[NodeAddress] | None = field(name="IPAddresses", default=None)
    ipv4_cidr: CIDR | None = field(name="IPv4AllocCIDR", default=None)
    ipv4_secondary_cidrs: list[CIDR | None] | None = field(name="IPv4SecondaryAllocCIDRs", default=None)
    ipv6_cidr: CIDR | None = field(name="IPv6AllocCIDR", default=None)
    ipv6_secondary_cidrs: list[CIDR | None] | None = field(name="IPv6SecondaryAllocCIDRs", default=None)
    ipv4_health_ip: str = field(name="IPv4HealthIP", default="")
    ipv6_health_ip: str = field(name="IPv6HealthIP", default="")
    ipv4_ingress_ip: str = field(name="IPv4IngressIP", default="")
    ipv6_ingress_ip: str = field(name="IPv6IngressIP", default="")
    cluster_id: int = field(name="ClusterID", default=0)
    source: str = field(name="Source", default="")
    encryption_key: int = field(name="EncryptionKey", default=0)
    labels: dict[str, str] | None = field(name="Labels", default=None)
    annotations: dict[str, str] | None = field(name="Annotations", default=None)
    wireguard_pub_key: str = field(name="WireguardPubKey", default="")
    boot_id: str = field(name="BootID", default="")

    def pod_cidrs(self) -> list[IPNetwork]:
        """Primary and secondary PodCIDRs of both families. Raises ValueError if one is not a prefix."""
        cidrs = [self.ipv4_cidr, *(self.ipv4_secondary_cidrs or ())]
        cidrs += [self.ipv6_cidr, *(self.ipv6_secondary_cidrs or ())]
        return [cidr.network() for cidr in cidrs if cidr is not None]

    def node_ip(self, version: int) -> IPAddress | None:
        """The address that tunnels end at: InternalIP, else ExternalIP, else any but a CiliumInternalIP."""
        chosen: tuple[int, IPAddress] | None = None
        for entry in self.addresses or ():
            if entry.type == "CiliumInternalIP":
                continue
            try:
                address = parse_address(entry.ip)
            except ValueError:
                continue
            rank = {"InternalIP": 0, "ExternalIP": 1}.get(entry.type, 2)
            if address.version == version and (chosen is None or rank < chosen[0]):
                chosen = (rank, address)
        return chosen[1] if chosen else None


class L4Addr(Struct, frozen=True, gc=False):
    """Protocol (TCP, UDP, SCTP) and port."""

    protocol: str = field(name="Protocol", default="")
    port: int = field(name="Port", default=0)


#: Port name ("" if unnamed) to protocol and port.
PortMap = dict[str, L4Addr]


class ForZone(Struct, frozen=True, gc=False):
    name: str = ""


class Zone(Struct, frozen=True, rename="camel", gc=False):
    """Where a backend runs and which zones it is meant for."""

    zone: str = ""
    for_zones: list[ForZone] | None = None


class Service(Struct, frozen=True, kw_only=True, gc=False):
    """`cilium/state/services/v1/<cluster>/<namespace>/<name>`: a shared global service and its backends."""

    cluster: str = ""
    namespace: str = ""
    name: str = ""
    frontends: dict[str, PortMap | None] | None = None
    backends: dict[str, PortMap | None] | None = None
    hostnames: dict[str, str] | UnsetType | None = UNSET
    zones: dict[str, Zone] | UnsetType | None = UNSET
    labels: dict[str, str] | None = None
    selector: dict[str, str] | None = None
    include_external: bool = field(name="includeExternal", default=False)
    shared: bool = False
    cluster_id: int = field(name="clusterID", default=0)


class NamedPort(Struct, frozen=True):
    name: str = field(name="Name", default="")
    port: int = field(name="Port", default=0)
    protocol: str = field(name="Protocol", default="")


class IP(Struct, frozen=True, kw_only=True, gc=False):
    """`cilium/state/ip/v1/default/<ip>`: a pod address (or prefix), its node and its identity."""

    ip: str = field(name="IP", default="")
    mask: str | None = field(name="Mask", default=None)
    host_ip: str = field(name="HostIP", default="")
    id: int = field(name="ID", default=0)
    key: int = field(name="Key", default=0)
    metadata: str = field(name="Metadata", default="")
    namespace: str | UnsetType = field(name="K8sNamespace", default=UNSET)
    pod_name: str | UnsetType = field(name="K8sPodName", default=UNSET)
    service_account: str | UnsetType = field(name="K8sServiceAccount", default=UNSET)
    named_ports: list[NamedPort] | UnsetType | None = field(name="NamedPorts", default=UNSET)

    def text(self) -> str:
        """The part of the key below the prefix: the address, with `/length` if it is a prefix. Raises ValueError."""
        if self.mask is None:
            address = parse_address(self.ip)
            return self.ip if address.version == 4 else str(address)  # an IPv4 address can be written in one way only
        network = CIDR(self.ip, self.mask).network()
        if parse_address(self.ip) != network.network_address:
            raise ValueError(f"{self.ip} is not the first address of {network}")
        return str(network)


class Label(Struct, frozen=True, order=True, gc=False):
    """`source:key=value`; the order is by key first, as in the identity's text."""

    key: str
    value: str = ""
    source: str = "k8s"


class Identity(Struct, frozen=True, gc=False):
    """`cilium/state/identities/v1/id/<number>`: the labels behind a number."""

    number: int
    labels: tuple[Label, ...]
