"""What a Cilium 1.20 agent checks of each record of a remote cluster. Written from the wire contract alone (its
sections 0.1, 1.4 and 9): nothing of ours is imported, so that reader and writer cannot share a mistake.

A record that fails is skipped (Invalid). What would crash a real agent is not skipped: it is a Crash.
Endpoint slices are zstd-compressed; of them only the frame's magic is looked at.
"""

import base64
import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_MAX_UINT64 = 2**64 - 1
_ZSTD = b"\x28\xb5\x2f\xfd"
_POLICY_CLUSTER = "io.cilium.k8s.policy.cluster"
_EXPORT_MODES = ("", "services-and-endpointslices", "endpointslices-only")


class Invalid(Exception):
    """The reader would skip this record, with a warning."""


class Crash(Exception):
    """A real reader would dereference nothing here and end."""


@dataclass(frozen=True)
class Peer:
    """The remote cluster as its configuration says. `max_clusters` is 255 or 511."""

    name: str
    id: int
    max_clusters: int = 255

    def owns(self, identity: int) -> bool:
        shift = 24 - self.max_clusters.bit_length()
        return self.id << shift <= identity < (self.id + 1) << shift


def check_config(value: bytes, cluster: str, *, own_id: int, used: frozenset[int], max_clusters: int = 255) -> Peer:
    """The peer, if its configuration is accepted. Raises Invalid."""
    document = _object(value)
    capabilities = _get(document, "capabilities", dict)
    number = _get(document, "id", int)
    _require(1 <= number <= max_clusters, f"cluster id {number}")
    _require(number != own_id and number not in used, f"cluster id {number} is taken")
    _require(_get(capabilities, "endpointSlicesExportMode", str) in _EXPORT_MODES, "unknown export mode")
    if max_clusters == 511:
        _require(_get(capabilities, "maxConnectedClusters", int) == max_clusters, "maxConnectedClusters")
    return Peer(cluster, number, max_clusters)


def wants_canaries(value: bytes) -> bool:
    return bool(_get(_get(_object(value), "capabilities", dict), "syncedCanaries", bool))


def is_cached(value: bytes) -> bool:
    return bool(_get(_get(_object(value), "capabilities", dict), "cached", bool))


def check_node(name: str, value: bytes, peer: Peer) -> None:
    node = _object(value)
    _require(_get(node, "Name", str) == name != "", "Name is not the key's")
    _require(_get(node, "Cluster", str) == peer.name, "Cluster is another one")
    _require(_get(node, "ClusterID", int) == peer.id, "ClusterID is another one")
    for address in _get(node, "IPAddresses", list):
        _check_ip(_get(_as(address, dict), "IP", str))
    for field in ("IPv4AllocCIDR", "IPv6AllocCIDR"):
        if cidr := _get(node, field, dict):
            _check_ip(_get(cidr, "IP", str))
            _mask_bits(_get(cidr, "Mask", str))


def check_service(name: str, value: bytes, peer: Peer) -> bool:
    """Whether it is shared; if not, the reader takes it for absent."""
    service = _object(value)
    namespace, own_name = _get(service, "namespace", str), _get(service, "name", str)
    _require(namespace != "" and own_name != "" and f"{namespace}/{own_name}" == name, "names are not the key's")
    _check_cluster(service, peer)
    for field in ("frontends", "backends"):
        for address, ports in _get(service, field, dict).items():
            _check_ip(address)
            for port in _as(ports, dict).values():
                if port is None:
                    raise Crash(f"null port of {field} {address} in {name}")
                _get(_as(port, dict), "Protocol", str)
                number = _get(port, "Port", int)
                _require(0 <= number <= 65535, f"port {number}")
    return bool(_get(service, "shared", bool))


def check_ip(name: str, value: bytes, peer: Peer) -> int:
    """The identity as the reader takes it: a host of there is a remote node here."""
    entry = _object(value)
    address = ipaddress.ip_address(_check_ip(_get(entry, "IP", str)))
    mask = _get(entry, "Mask", str)
    canonical = f"{address}/{_mask_bits(mask)}" if mask else str(address)
    _require(canonical == name, f"the key is not {canonical}")
    if host := _get(entry, "HostIP", str):
        _check_ip(host)
    for port in _get(entry, "NamedPorts", list):
        _get(_as(port, dict), "Port", int)
    identity = _get(entry, "ID", int)
    _require(identity < 256 or peer.owns(identity), f"identity {identity} is not the cluster's")
    return 6 if identity == 1 else int(identity)


def check_identity(suffix: str, value: bytes, peer: Peer) -> None:
    """`suffix` is what follows `…/identities/v1/id`, which is watched without a slash."""
    if not suffix:
        raise Crash("an identity key without a suffix")
    number = suffix.removeprefix("/")
    _require(re.fullmatch(r"[0-9]+", number) is not None and int(number) <= _MAX_UINT64, "no decimal number")
    _require(peer.owns(int(number)), f"identity {number} is not the cluster's")
    _require(value != b"", "no labels")
    clusters = []
    for label in value.decode(errors="replace").split(";"):
        source, _, rest = label.partition(":")
        key, _, content = rest.partition("=")
        if key == _POLICY_CLUSTER:
            clusters.append((source, content))
    _require(clusters != [] and set(clusters) == {("k8s", peer.name)}, "the policy cluster is another one, or none")


def check_endpoint_slice(name: str, value: bytes, peer: Peer) -> None:
    _require(value.startswith(_ZSTD), "no zstd frame")
    _require(re.fullmatch(r"[^/]+/[^/]+", name) is not None, "no namespace/name")


#: Kind → prefix without the cluster, whether the cluster's name follows in it, what is checked.
KINDS: Mapping[str, tuple[str, str, Callable[[str, bytes, Peer], object]]] = {
    "nodes": ("cilium/state/nodes/v1", "/{cluster}/", check_node),
    "services": ("cilium/state/services/v1", "/{cluster}/", check_service),
    "ip": ("cilium/state/ip/v1", "/default/", check_ip),
    "identities": ("cilium/state/identities/v1", "/id", check_identity),
    "endpointslices": ("cilium/state/endpointslices/v1", "/{cluster}/", check_endpoint_slice),
}


def _check_cluster(document: Mapping[str, Any], peer: Peer) -> None:
    _require(_get(document, "cluster", str) == peer.name, "cluster is another one")
    _require(_get(document, "clusterID", int) == peer.id, "clusterID is another one")


def _object(value: bytes) -> dict[str, Any]:
    try:
        return dict(_as(json.loads(value), dict))
    except (ValueError, RecursionError) as error:
        raise Invalid(f"no JSON: {error}") from error


_ZERO: Mapping[type, Any] = {dict: {}, list: [], str: "", int: 0, bool: False}


def _get(document: Mapping[str, Any], name: str, kind: type) -> Any:
    """A field as Go's decoder sees it: the exact name first, else any case; null and absent are the zero value."""
    if name not in document:
        name = next((other for other in document if other.lower() == name.lower()), name)
    found = document.get(name)
    return _ZERO[kind] if found is None else _as(found, kind)


def _as(value: Any, kind: type) -> Any:
    _require(isinstance(value, kind) and (kind is bool or not isinstance(value, bool)), f"{value!r:.40} is no {kind}")
    return value


def _check_ip(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError as error:
        raise Invalid(str(error)) from error
    return text


def _mask_bits(text: str) -> int:
    try:
        mask = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Invalid(f"mask {text!r}") from error
    bits = f"{int.from_bytes(mask, 'big'):0{len(mask) * 8}b}"
    _require(len(mask) in (4, 16) and "01" not in bits, f"mask {text!r}")
    return bits.count("1")


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise Invalid(reason)
