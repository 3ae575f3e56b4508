"""What a remote cluster's record of a headless service comes to as EndpointSlices of the own cluster. Pure.

A slice has endpoints of one cluster, one family and one set of ports. Which of several it stands in follows from the
address, so that a pod that comes or goes changes one slice.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from hashlib import blake2b
from ipaddress import ip_address
from typing import Any

from msgspec import to_builtins

from meshd.agent.index import ObjectName
from meshd.agent.objects import (
    HEADLESS_LABEL,
    MANAGED_BY_LABEL,
    OUR_SLICE_MANAGER,
    SERVICE_NAME_LABEL,
    EndpointConditions,
    EndpointSlice,
    Metadata,
    SliceEndpoint,
    SlicePort,
)
from wire.records import Service, value_or

SOURCE_LABEL = "multicluster.kubernetes.io/source-cluster"
#: Endpoints of a slice on average, at most; Kubernetes' own have up to 100, and 1000 are allowed.
FULL = 64
READY = EndpointConditions(ready=True, serving=True, terminating=False)
_HOST_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
Ports = tuple[SlicePort, ...]


def imported_slices(service: ObjectName, cluster: str, record: Service) -> dict[str, EndpointSlice]:
    """The slices by name."""
    groups: defaultdict[tuple[str, Ports], dict[str, SliceEndpoint]] = defaultdict(dict)
    for address, ports in (record.backends or {}).items():
        version = ip_address(address).version
        known = sorted((ports or {}).items())
        slice_ports = tuple(SlicePort(name=name, protocol=at.protocol, port=at.port) for name, at in known)
        groups[f"IPv{version}", slice_ports][address] = SliceEndpoint(
            addresses=(address,), conditions=READY, hostname=_hostname(record, address), zone=_zone(record, address)
        )
    found: dict[str, EndpointSlice] = {}
    for (family, slice_ports), endpoints in groups.items():
        ports_text = ",".join(f"{port.name}:{port.protocol}:{port.port}" for port in slice_ports)
        for number, part in enumerate(_parts(endpoints)):
            name = _name(service, cluster, f"{family} {ports_text} {number}")
            found[name] = EndpointSlice(
                metadata=Metadata(name=name, namespace=service[0], labels=_labels(service[1], cluster)),
                address_type=family,
                endpoints=part,
                ports=list(slice_ports),
            )
    return found


def document_of(known: EndpointSlice) -> dict[str, Any]:
    """As the API server takes it: what is empty is not said."""
    endpoints = []
    for endpoint in known.endpoints:
        said: dict[str, Any] = {"addresses": list(endpoint.addresses), "conditions": to_builtins(endpoint.conditions)}
        optional = {"hostname": endpoint.hostname, "zone": endpoint.zone}
        endpoints.append(said | {name: value for name, value in optional.items() if value})
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": known.metadata.name,
            "namespace": known.metadata.namespace,
            "labels": dict(known.metadata.labels),
        },
        "addressType": known.address_type,
        "endpoints": endpoints,
        "ports": [{"name": port.name, "protocol": port.protocol, "port": port.port} for port in known.ports],
    }


def source_of(known: EndpointSlice) -> str:
    """The cluster whose backends stand in it."""
    return known.metadata.labels.get(SOURCE_LABEL, "")


def says_the_same(known: EndpointSlice, wanted: EndpointSlice) -> bool:
    """Whether a slice is as wanted; labels that others have added are left alone."""
    labels = wanted.metadata.labels.items() <= known.metadata.labels.items()
    return labels and (known.address_type, known.endpoints, known.ports) == (
        wanted.address_type,
        wanted.endpoints,
        wanted.ports,
    )


def _parts(endpoints: Mapping[str, SliceEndpoint]) -> list[tuple[SliceEndpoint, ...]]:
    """A power of two of them, so that growth seldom moves anything."""
    count = 1
    while count * FULL < len(endpoints):
        count *= 2
    parts: list[list[SliceEndpoint]] = [[] for _ in range(count)]
    for address in sorted(endpoints):
        parts[_hash(address) % count].append(endpoints[address])
    return [tuple(part) for part in parts]


def _labels(service: str, cluster: str) -> dict[str, str]:
    return {
        SERVICE_NAME_LABEL: service,
        MANAGED_BY_LABEL: OUR_SLICE_MANAGER,
        SOURCE_LABEL: cluster,
        HEADLESS_LABEL: "",  # kube-proxy leaves it alone
    }


def _name(service: ObjectName, cluster: str, what: str) -> str:
    return f"{service[1]}-{cluster}-{_hash(f'{service[0]}/{service[1]} {cluster} {what}'):010x}"


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=5).digest(), "big")


def _hostname(record: Service, address: str) -> str:
    """Kubernetes refuses a slice for a host name that is none."""
    name = value_or(record.hostnames, {}).get(address, "")
    return name if _HOST_NAME.fullmatch(name) else ""


def _zone(record: Service, address: str) -> str:
    zone = value_or(record.zones, {}).get(address)
    return zone.zone if zone else ""
