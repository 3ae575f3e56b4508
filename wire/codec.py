"""Bytes of etcd to records and back. A value that is not what its key promises is a BadRecord, never anything else.

`decode` checks what ClusterMesh's readers check (wire contract § 1.4): shape, the record's own name against its key,
its cluster and cluster ID against the cluster that was connected to, the identity's range.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from sys import intern
from typing import Any, NoReturn

import msgspec
from msgspec import UNSET
from msgspec.structs import force_setattr

from wire.addresses import packed_addresses, parse_address
from wire.keys import Kind
from wire.labels import CLUSTER_LABEL, parse_labels
from wire.local import Allocation, LocalService
from wire.records import IP, ClusterConfig, Identity, L4Addr, Node, PortMap, Service, value_or

#: Larger values are refused unread, bytes. etcd takes 1.5 MiB by default; a service of 5 000 backends needs a third.
MAX_VALUE = 1 << 20
MAX_IDENTITY_RESERVED = 255
SLICES_ONLY = "endpointslices-only"
EXPORT_MODES = ("", "services-and-endpointslices", SLICES_ONLY)
MODE_SHOWN = 64  # characters
SHARED = 1 << 13
"""Values of which equal ones are kept once: those that came last."""
NUMBERS = 1 << 16
PORTS, PORT_NAME = 16, 63  # names; characters

Record = Node | Service | Identity | IP | LocalService | Allocation | msgspec.Raw


class BadRecord(ValueError):
    """One record that cannot be used. `reason` is a short fixed word for counters, str(error) the whole story."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Scope:
    """Who speaks: the cluster a record must name, its ID and the identities that are its to give."""

    cluster: str
    cluster_id: int
    identities: range


_config = msgspec.json.Decoder(ClusterConfig)
_node = msgspec.json.Decoder(Node)
_service = msgspec.json.Decoder(Service)
_ip = msgspec.json.Decoder(IP)
_decode_one_ip = _ip.decode
_local_service = msgspec.json.Decoder(LocalService)
_allocation = msgspec.json.Decoder(Allocation)
_raw = msgspec.json.Decoder(msgspec.Raw)
_numbers: dict[int, int] = {}
_encoder = msgspec.json.Encoder()


def encode(record: msgspec.Struct) -> bytes:
    """A record as its value in etcd. Not for identities: their value is text (see wire.labels)."""
    return _encoder.encode(record)


def encoded_size(records: Collection[msgspec.Struct]) -> int:
    """Bytes of the values of these records together."""
    return len(_encoder.encode(list(records))) - len(records) - 1 if records else 0  # without brackets and commas


def decode_cluster_config(value: bytes) -> ClusterConfig:
    """Raises BadRecord, also for a mode of exporting EndpointSlices that nobody knows, as ClusterMesh's readers do."""
    config: ClusterConfig = _json(_config, value)
    mode = value_or(config.capabilities.endpoint_slices_export_mode, "")
    if mode not in EXPORT_MODES:
        raise BadRecord("unknown-mode", f"endpointSlicesExportMode {mode[:MODE_SHOWN]!r} is none of {EXPORT_MODES[1:]}")
    return config


def decode(kind: Kind, name: str, value: bytes, scope: Scope) -> Record:
    """The record that stands under `name` (the key below its prefix). Raises BadRecord, and nothing else."""
    if len(value) > MAX_VALUE:
        raise BadRecord("too-large", f"{kind} {name}: {len(value)} bytes, the limit is {MAX_VALUE}")
    return _DECODERS[kind](name, value, scope)


def decode_ips(values: Mapping[str, bytes], scope: Scope) -> list[IP] | None:
    """What `decode` gives for very many addresses, in their order, at half the price. None if one of them is a prefix
    or is refused: ask for each.
    """
    try:
        ips = [_decode_one_ip(value) for value in values.values() if len(value) <= MAX_VALUE]
        hosts = {host: intern(host) for host in {ip.host_ip for ip in ips} if not host or parse_address(host)}
        packed_addresses(values)
    except (ValueError, RecursionError):
        return None
    start, stop = scope.identities.start, scope.identities.stop
    if [ip.ip for ip in ips] != list(values) or any(ip.mask is not None for ip in ips):
        return None
    if not all(start <= ip.id < stop or 0 <= ip.id <= MAX_IDENTITY_RESERVED for ip in ips):
        return None
    for name, ip in zip(values, ips, strict=True):
        _share(ip, name, hosts[ip.host_ip])
    return ips


def _share(ip: IP, name: str, host: str) -> None:
    """There may be hundreds of thousands of them, with few nodes and namespaces: texts that are equal become one."""
    force_setattr(ip, "ip", name)
    force_setattr(ip, "host_ip", host)
    force_setattr(ip, "id", _same_number(ip.id))
    if (namespace := ip.namespace) is not UNSET:
        force_setattr(ip, "namespace", intern(namespace))
    if (account := ip.service_account) is not UNSET:
        force_setattr(ip, "service_account", intern(account))


def _same_number(number: int) -> int:
    if len(_numbers) > NUMBERS:
        _numbers.clear()
    return _numbers.setdefault(number, number)


def _json(decoder: msgspec.json.Decoder[Any], value: bytes) -> Any:
    try:
        return decoder.decode(value)
    except msgspec.ValidationError as error:
        raise BadRecord("wrong-type", str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord("not-json", str(error)) from error


def _fail(reason: str, kind: Kind, name: str, detail: str) -> NoReturn:
    raise BadRecord(reason, f"{kind} {name}: {detail}")


def _check_owner(kind: Kind, name: str, cluster: str, cluster_id: int, scope: Scope) -> None:
    if cluster != scope.cluster:
        _fail("wrong-cluster", kind, name, f"says cluster {cluster!r}, comes from {scope.cluster!r}")
    if cluster_id != scope.cluster_id:
        _fail(
            "wrong-cluster-id",
            kind,
            name,
            f"says cluster ID {cluster_id}, {scope.cluster!r} has {scope.cluster_id}",
        )


def _decode_node(name: str, value: bytes, scope: Scope) -> Node:
    node: Node = _json(_node, value)
    if node.name != name or not name:
        _fail("key-mismatch", Kind.NODE, name, f"says its name is {node.name!r}")
    _check_owner(Kind.NODE, name, node.cluster, node.cluster_id, scope)
    try:
        node.pod_cidrs()
    except ValueError as error:
        _fail("invalid-ip", Kind.NODE, name, str(error))
    return node


def _decode_service(name: str, value: bytes, scope: Scope) -> Service:
    service: Service = _json(_service, value)
    if f"{service.namespace}/{service.name}" != name or not service.namespace or not service.name:
        _fail("key-mismatch", Kind.SERVICE, name, f"says its name is {service.namespace}/{service.name}")
    _check_owner(Kind.SERVICE, name, service.cluster, service.cluster_id, scope)
    for addresses in (service.frontends or {}, service.backends or {}):
        for address, ports in addresses.items():
            _check_address(Kind.SERVICE, name, address)
            for port in (ports or {}).values():
                if not 0 <= port.port <= 65535:
                    _fail("invalid-port", Kind.SERVICE, name, f"{address} has port {port.port}")
            if ports:
                addresses[address] = _shared_ports(ports)
    force_setattr(service, "cluster", intern(service.cluster))
    force_setattr(service, "namespace", intern(service.namespace))
    return service


def _shared_ports(ports: PortMap) -> PortMap:
    """Backends of a service have the same ports, and most services the same as others. What is longer than any that
    Kubernetes takes is not kept for a peer.
    """
    if len(ports) > PORTS or any(len(name) + len(port.protocol) > PORT_NAME for name, port in ports.items()):
        return ports
    return _same_ports(tuple(ports.items()))


@lru_cache(SHARED)
def _same_ports(items: tuple[tuple[str, L4Addr], ...]) -> PortMap:
    return dict(items)


def _check_address(kind: Kind, name: str, address: str) -> None:
    try:
        parse_address(address)
    except ValueError:
        _fail("invalid-ip", kind, name, f"{address!r} is not an IP address")


def _decode_identity(name: str, value: bytes, scope: Scope) -> Identity:
    number = _number(Kind.IDENTITY, name)
    if number not in scope.identities:
        _fail("identity-out-of-range", Kind.IDENTITY, name, _range_text(scope))
    try:
        labels = parse_labels(value.decode())
    except ValueError as error:
        _fail("invalid-labels", Kind.IDENTITY, name, str(error))
    clusters = [label for label in labels if label.key == CLUSTER_LABEL]
    if not clusters or any(label.source != "k8s" or label.value != scope.cluster for label in clusters):
        _fail("wrong-cluster", Kind.IDENTITY, name, f"its labels do not say k8s:{CLUSTER_LABEL}={scope.cluster}")
    return Identity(number, labels)


def _decode_ip(name: str, value: bytes, scope: Scope) -> IP:
    ip: IP = _json(_ip, value)
    try:
        text = ip.text()
    except ValueError as error:
        _fail("invalid-ip", Kind.IP, name, str(error))
    if text != name:
        _fail("key-mismatch", Kind.IP, name, f"says it is {text}")
    if ip.id not in scope.identities and not 0 <= ip.id <= MAX_IDENTITY_RESERVED:
        _fail("identity-out-of-range", Kind.IP, name, f"identity {ip.id}: {_range_text(scope)}")
    if ip.host_ip:
        _check_address(Kind.IP, name, ip.host_ip)
    _share(ip, ip.ip if ip.mask is not None else name, intern(ip.host_ip))
    return ip


def _decode_local_service(name: str, value: bytes, scope: Scope) -> LocalService:
    service: LocalService = _json(_local_service, value)
    if f"{service.namespace}/{service.name}" != name:
        _fail("key-mismatch", Kind.LOCAL_SERVICE, name, f"says its name is {service.namespace}/{service.name}")
    for address in [*service.cluster_ips, *(backend.ip for backend in service.backends)]:
        _check_address(Kind.LOCAL_SERVICE, name, address)
    for backend in service.backends:
        force_setattr(backend, "ports", _shared_ports(backend.ports))
        force_setattr(backend, "node", intern(backend.node))
        force_setattr(backend, "zone", intern(backend.zone))
    for field in ("namespace", "internal_traffic_policy", "external_traffic_policy"):
        force_setattr(service, field, intern(getattr(service, field)))
    return service


def _decode_allocation(name: str, value: bytes, scope: Scope) -> Allocation:
    if _number(Kind.ALLOCATION, name) not in scope.identities:
        _fail("identity-out-of-range", Kind.ALLOCATION, name, _range_text(scope))
    allocation: Allocation = _json(_allocation, value)
    return allocation


def _decode_policy(name: str, value: bytes, scope: Scope) -> msgspec.Raw:
    raw: msgspec.Raw = _json(_raw, value)
    return raw


def _number(kind: Kind, name: str) -> int:
    if not (name.isascii() and name.isdigit() and len(name) <= 10 and (name[0] != "0" or name == "0")):
        _fail("key-mismatch", kind, name, "is not a number, or could be written otherwise")
    return int(name)


def _range_text(scope: Scope) -> str:
    return f"{scope.cluster!r} may use {scope.identities.start} to {scope.identities.stop - 1}"


_DECODERS: dict[Kind, Callable[[str, bytes, Scope], Record]] = {
    Kind.NODE: _decode_node,
    Kind.SERVICE: _decode_service,
    Kind.IDENTITY: _decode_identity,
    Kind.IP: _decode_ip,
    Kind.LOCAL_SERVICE: _decode_local_service,
    Kind.ALLOCATION: _decode_allocation,
    Kind.POLICY: _decode_policy,
}
