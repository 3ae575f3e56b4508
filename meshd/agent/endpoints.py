"""The endpoints of a service: from its slices, or, where it has none, from its selector and the pods.

Pure. The computation from pods is what Kubernetes' EndpointSlice controller does (conditions, named target ports,
publishNotReadyAddresses), so that a folder of manifests needs no slices.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address

from meshd.agent.index import ObjectName
from meshd.agent.objects import EndpointSlice, Pod, Service, ServicePort, SliceEndpoint
from meshd.agent.state import LocalState
from wire.local import BackendState
from wire.records import L4Addr, PortMap

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
#: Several times faster than the library, and there is one of these for every pod.
_IPV4 = re.compile(rf"(?:{_OCTET}\.){{3}}{_OCTET}")

PROTOCOLS = ("TCP", "UDP", "SCTP")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One address behind a service. A condition that is None was not said."""

    ip: str
    ports: PortMap
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None
    hostname: str = ""
    node: str = ""
    zone: str = ""
    for_zones: Sequence[str] = field(default=())

    @property
    def is_exported(self) -> bool:
        """Shown to other clusters (recorded from real writers): ready or serving, where not said means yes."""
        return self.ready is not False or self.serving is not False

    @property
    def state(self) -> BackendState:
        """As a backend of its own cluster: one that only still serves is the last resort."""
        if self.ready is not False:
            return "active"
        return "terminating" if self.terminating and self.serving is not False else "not-ready"


def endpoints_of(state: LocalState, service: ObjectName) -> tuple[list[Endpoint], list[str]]:
    """The endpoints of a known service, sorted by address, and a sentence for each that is left out.

    An address that stands in two slices has what the later one says, by name.
    """
    odd: list[str] = []
    slices = state.slices_of(service)
    found = _from_slices(slices, odd) if slices else _from_pods(state, service)
    endpoints = {endpoint.ip: endpoint for endpoint in found}
    return [endpoints[ip] for ip in sorted(endpoints)], odd


def _from_slices(slices: Iterable[EndpointSlice], odd: list[str]) -> Iterator[Endpoint]:
    for each in slices:
        if each.address_type not in ("IPv4", "IPv6"):
            odd.append(f"slice {each.metadata.name} has addressType {each.address_type!r}: left out")
            continue
        ports = {
            port.name: L4Addr(port.protocol, port.port)
            for port in sorted(each.ports, key=lambda port: port.name)
            if port.port is not None and is_usable(port.protocol, port.port)
        }
        for endpoint in each.endpoints:
            bad = [address for address in endpoint.addresses if not canonical_ip(address)]
            odd += [f"slice {each.metadata.name}: {address!r} is not an IP address: left out" for address in bad]
            yield from _of_slice_endpoint(endpoint, ports)


def _of_slice_endpoint(endpoint: SliceEndpoint, ports: PortMap) -> Iterator[Endpoint]:
    conditions = endpoint.conditions
    for address in endpoint.addresses:
        if ip := canonical_ip(address):
            yield Endpoint(
                ip=ip,
                ports=ports,
                ready=conditions.ready,
                serving=conditions.serving,
                terminating=conditions.terminating,
                hostname=endpoint.hostname,
                node=endpoint.node_name,
                zone=endpoint.zone,
                for_zones=tuple(zone.name for zone in endpoint.hints.for_zones),
            )


def _from_pods(state: LocalState, name: ObjectName) -> Iterator[Endpoint]:
    service = state.services[name]
    for pod in state.pods_of(name):
        if not pod.is_finished:
            yield from _of_pod(pod, service, state.zone_of(pod.spec.node_name))


def _of_pod(pod: Pod, service: Service, zone: str) -> Iterator[Endpoint]:
    serving, terminating = pod.is_ready, pod.is_terminating
    ports = {
        port.name: L4Addr(port.protocol, number)
        for port in sorted(service.spec.ports, key=lambda port: port.name)
        if is_usable(port.protocol, number := _target_port(pod, port))
    }
    for address in pod.addresses:
        ip = canonical_ip(address)
        if ip and _has_family(service, ip):
            yield Endpoint(
                ip=ip,
                ports=ports,
                ready=service.spec.publish_not_ready_addresses or (serving and not terminating),
                serving=serving,
                terminating=terminating,
                hostname=pod.spec.hostname if pod.spec.subdomain == service.metadata.name else "",
                node=pod.spec.node_name,
                zone=zone,
            )


def _target_port(pod: Pod, port: ServicePort) -> int:
    """Where the pod listens, 0 if it names no such port. Without a targetPort it is the service's port."""
    target = port.target_port
    if isinstance(target, str) and not target.isdecimal():
        named = (each for each in pod.ports if each.name == target and each.protocol == port.protocol)
        return next((each.container_port for each in named), 0)
    return int(target) or port.port


def _has_family(service: Service, ip: str) -> bool:
    """Whether the service takes addresses of this family: ipFamilies tells, else its ClusterIPs, else it takes all."""
    families = set(service.spec.ip_families) or {_family(address) for address in service.cluster_ips}
    return not families or _family(ip) in families


def _family(address: str) -> str:
    return "IPv6" if ":" in address else "IPv4"


def is_usable(protocol: str, port: int) -> bool:
    """Whether the mesh can carry it."""
    return protocol in PROTOCOLS and 1 <= port <= 65535


def canonical_ip(text: str) -> str:
    """The address as it is written in etcd, "" if it is none (one with a zone is none: it means nothing elsewhere)."""
    if _IPV4.fullmatch(text):
        return text
    try:
        return str(IPv6Address(text)) if "%" not in text else ""
    except ValueError:
        return ""
