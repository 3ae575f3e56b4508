"""One global service out of this cluster's Service and what the other clusters share under the same name.

Rules (ClusterMesh, wire contract § 4.4): namespace and name join; a service is global here only if it is annotated
here; a backend fits a frontend if protocol and IP family are equal and, where both have port names, a name matches.
Port numbers need not match.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from globalsvc.annotations import parse_annotations
from globalsvc.selection import Choice, select
from wire.local import BackendState, LocalService
from wire.records import IPAddress, PortMap, Service


@dataclass(frozen=True, slots=True)
class Backend:
    """A pod's address behind a service. Equal ones are one backend, whatever services they stand behind."""

    address: IPAddress
    port: int
    protocol: str
    cluster: str


@dataclass(frozen=True, slots=True)
class Offer:
    """A backend as its cluster offers it: under which port names (none: unnamed), in which state."""

    backend: Backend
    names: frozenset[str]
    state: BackendState


@dataclass(frozen=True, slots=True)
class Frontend:
    """An address that clients use, with the backends that were selected for it, in a stable order."""

    address: IPAddress
    port: int
    protocol: str
    name: str
    backends: tuple[Backend, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend and whether it is used; `reason` says why (not)."""

    backend: Backend
    used: bool
    reason: str


@dataclass(frozen=True, slots=True)
class GlobalService:
    """A service as this cluster's nodes realise it."""

    name: str
    frontends: tuple[Frontend, ...]
    candidates: tuple[Candidate, ...]
    problems: tuple[str, ...] = ()


def merge(local: LocalService | None, remotes: Mapping[str, Service], *, cluster: str) -> GlobalService | None:
    """The service that results, or None if it is not global in this cluster.

    `remotes` are the records of the same name, by cluster; `cluster` is this one.
    """
    if local is None:
        return None
    annotations = parse_annotations(local.annotations)
    if not annotations.is_global:
        return None
    offers = _sorted(_local_offers(local, cluster))
    for name in sorted(remotes):
        if remotes[name].shared:
            offers += _sorted(_remote_offers(remotes[name]))
    choices = select([(o.backend.cluster == cluster, o.state) for o in offers], annotations.affinity)
    used = [offer for offer, choice in zip(offers, choices, strict=True) if choice.used]
    return GlobalService(
        name=f"{local.namespace}/{local.name}",
        frontends=_frontends(local, used),
        candidates=tuple(_candidate(o, c) for o, c in zip(offers, choices, strict=True)),
        problems=annotations.problems,
    )


def _candidate(offer: Offer, choice: Choice) -> Candidate:
    return Candidate(offer.backend, choice.used, choice.reason)


def _frontends(local: LocalService, used: list[Offer]) -> tuple[Frontend, ...]:
    frontends = []
    for address in map(ip_address, local.cluster_ips):
        for port in local.ports:
            backends = tuple(o.backend for o in used if _fits(o, address, port.protocol, port.name))
            frontends.append(Frontend(address, port.port, port.protocol, port.name, backends))
    return tuple(frontends)


def _fits(offer: Offer, address: IPAddress, protocol: str, name: str) -> bool:
    backend = offer.backend
    if backend.protocol != protocol or backend.address.version != address.version:
        return False
    return not name or not offer.names or name in offer.names


def _local_offers(service: LocalService, cluster: str) -> Iterable[Offer]:
    for backend in service.backends:
        yield from _offers(backend.ip, backend.ports, cluster, backend.state)


def _remote_offers(service: Service) -> Iterable[Offer]:
    for address, ports in (service.backends or {}).items():
        yield from _offers(address, ports or {}, service.cluster, "active")


def _offers(address: str, ports: PortMap, cluster: str, state: BackendState) -> Iterable[Offer]:
    """One offer per distinct protocol and port, with all the names that this one has."""
    named: dict[Backend, set[str]] = {}
    ip = ip_address(address)
    for name, port in ports.items():
        named.setdefault(Backend(ip, port.port, port.protocol or "TCP", cluster), set()).add(name)
    for backend, names in named.items():
        yield Offer(backend, frozenset(names - {""}), state)


def _sorted(offers: Iterable[Offer]) -> list[Offer]:
    return sorted(offers, key=lambda o: (o.backend.address.packed, o.backend.port, o.backend.protocol))
