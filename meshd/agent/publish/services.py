"""A Service as other clusters see it: its frontends and those of its backends that may be used."""

from collections import Counter
from collections.abc import Sequence

from msgspec import UNSET

from globalsvc.annotations import Annotations, parse_annotations
from meshd.agent.endpoints import Endpoint, canonical_ip, is_usable
from meshd.agent.objects import Service
from meshd.agent.publish.scope import Scope
from wire.records import ForZone, L4Addr, PortMap, Zone
from wire.records import Service as ServiceRecord


def read_annotations(service: Service) -> Annotations:
    """What the Service asks for. An ExternalName has neither frontends nor backends: it is never global."""
    annotations = parse_annotations(service.metadata.annotations)
    if annotations.is_global and service.spec.type == "ExternalName":
        return Annotations(problems=("an ExternalName service cannot be global: it is not published",))
    return annotations


def service_record(service: Service, namespace: str, endpoints: Sequence[Endpoint], scope: Scope) -> ServiceRecord:
    """The record of a service that is global and shared (readers never see another one)."""
    exported = [endpoint for endpoint in endpoints if endpoint.is_exported]
    hostnames = {endpoint.ip: endpoint.hostname for endpoint in exported if endpoint.hostname}
    zones = {endpoint.ip: _zone(endpoint) for endpoint in exported if endpoint.zone}
    return ServiceRecord(
        cluster=scope.cluster,
        namespace=namespace,
        name=service.metadata.name,
        frontends={ip: frontend_ports(service) for ip in frontend_ips(service)},
        backends={endpoint.ip: endpoint.ports for endpoint in exported},
        hostnames=hostnames or UNSET,
        zones=zones or UNSET,
        labels=dict(sorted(service.metadata.labels.items())),
        selector=dict(sorted(service.spec.selector.items())),
        include_external=True,
        shared=True,
        cluster_id=scope.cluster_id,
    )


def service_problems(service: Service) -> list[str]:
    """A sentence for everything of its spec that is left out."""
    odd = [
        f"clusterIP {text!r} is not an IP address: left out" for text in service.cluster_ips if not canonical_ip(text)
    ]
    names = Counter(port.name for port in service.spec.ports)
    odd += [f"{count} ports are named {name!r}: the last is used" for name, count in names.items() if count > 1]
    for port in service.spec.ports:
        if not is_usable(port.protocol, port.port):
            odd.append(f"port {port.name!r}: {port.protocol} {port.port} cannot be carried: left out")
    return odd


def frontend_ips(service: Service) -> list[str]:
    """The ClusterIPs that are addresses, sorted; external and load balancer addresses are no frontends of a mesh."""
    return sorted(filter(None, map(canonical_ip, service.cluster_ips)))


def frontend_ports(service: Service) -> PortMap:
    """The service's ports by name. A port that the mesh cannot carry is left out."""
    ports = sorted(service.spec.ports, key=lambda port: port.name)
    return {port.name: L4Addr(port.protocol, port.port) for port in ports if is_usable(port.protocol, port.port)}


def _zone(endpoint: Endpoint) -> Zone:
    return Zone(zone=endpoint.zone, for_zones=[ForZone(name) for name in endpoint.for_zones])
