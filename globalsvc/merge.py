"""One global service out of this cluster's Service and what the other clusters share under the same name.

Rules (ClusterMesh, wire contract § 4.4): namespace and name join; a service is global here only if it is annotated
here; a backend fits a frontend if protocol and IP family are equal and, where both have port names, a name matches.
Port numbers need not match, but for SCTP, whose ports we do not translate. Whether a backend is used is decided for
each frontend (selection.py).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from globalsvc.annotations import Annotations, parse_annotations
from globalsvc.backend import Backend, Offer
from globalsvc.preferences import Balancing
from globalsvc.selection import Choice, Rules, compute_weights, select
from wire.addresses import parse_address
from wire.local import LocalBackend, LocalService, ServicePort
from wire.records import IPAddress, PortMap, Service, Zone, value_or

NOT_SHARED = Choice(False, "its cluster does not share the service")
ALSO_CLAIMED = Choice(False, "another cluster has a backend of this address: ours first, then the lower cluster ID")
UNMATCHED = Choice(False, "no frontend has its protocol, IP family and port name")
_parse = lru_cache(1 << 16)(parse_address)
_UNNAMED: frozenset[str] = frozenset()

FrontendName = tuple[IPAddress, int, str]
"""Address, port, protocol."""


class Candidate(NamedTuple):
    """A backend and whether it is used; `choice.reason` says why (not)."""

    backend: Backend
    choice: Choice


@dataclass(frozen=True, slots=True)
class Frontend:
    """An address that clients use, with the backends that were selected for it, in a stable order.

    `weights` says how often each is chosen relative to the others; empty: all the same. `candidates` are all that fit
    but for their port name, used or not. `spilling`: min-healthy lets other clusters' backends in.
    """

    address: IPAddress
    port: int
    protocol: str
    name: str
    backends: tuple[Backend, ...]
    weights: tuple[int, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    spilling: bool = False


@dataclass(frozen=True, slots=True)
class GlobalService:
    """A service as this node realises it. `unmatched` are candidates of no frontend. `problems` are sentences.

    Not `is_global`: its annotation cannot be understood, so it has no frontends, and a problem says why.
    `clusters`: those that its annotations name.
    """

    name: str
    frontends: tuple[Frontend, ...]
    problems: tuple[str, ...] = ()
    is_global: bool = True
    session_affinity_timeout_s: int = 0
    balancing: Balancing | None = None
    unmatched: tuple[Candidate, ...] = ()
    clusters: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Place:
    """Where the merge is made for: the answer may depend on the node and its zone ("": not known)."""

    cluster: str
    node: str = ""
    zone: str = ""


def merge(
    local: LocalService | None,
    remotes: Mapping[str, Service],
    *,
    place: Place,
    spilling: Mapping[FrontendName, bool] | None = None,
) -> GlobalService | None:
    """The service that results, or None if it does not ask to be global in this cluster.

    `remotes` are the records of the same name, by cluster. `spilling` says of which frontends min-healthy let other
    clusters' backends in before; those that are missing are not known.
    """
    if local is None:
        return None
    annotations = parse_annotations(local.annotations)
    name = f"{local.namespace}/{local.name}"
    if annotations.is_doubtful:
        return GlobalService(name, (), annotations.problems, is_global=False)
    if not annotations.is_global:
        return None
    offers, refused = _offers(local, remotes, place.cluster)
    problems = dict.fromkeys(annotations.problems)
    frontends = []
    for address in map(_parse, local.cluster_ips):
        for port in local.ports:
            before = (spilling or {}).get((address, port.port, port.protocol))
            rules = _rules(local, annotations, place, before)
            frontends.append(_frontend(address, port, offers, rules))
            problems |= dict.fromkeys(_sctp_problems(frontends[-1]))
    return GlobalService(
        name=name,
        frontends=tuple(frontends),
        problems=tuple(problems),
        session_affinity_timeout_s=local.session_affinity_timeout_s,
        balancing=annotations.preferences.balancing,
        unmatched=(*refused, *_unmatched(offers, frontends)),
        clusters=annotations.preferences.clusters,
    )


def _rules(local: LocalService, annotations: Annotations, place: Place, before: bool | None) -> Rules:
    return Rules(
        affinity=annotations.affinity,
        preferences=annotations.preferences,
        node_only=local.internal_traffic_policy == "Local",
        node=place.node,
        zone=place.zone,
        spilling=before,
    )


def _frontend(address: IPAddress, port: ServicePort, offers: list[Offer], rules: Rules) -> Frontend:
    fitting = []
    candidates = []
    for offer in offers:
        backend = offer.backend
        if backend.protocol != port.protocol or backend.address.version != address.version:
            continue
        if misfit := _misfit(offer, port):
            candidates.append(Candidate(backend, misfit))
        else:
            fitting.append(offer)
    selection = select(fitting, rules)
    used = [offer for offer, choice in zip(fitting, selection.choices, strict=True) if choice.used]
    chosen = map(Candidate, (offer.backend for offer in fitting), selection.choices)
    return Frontend(
        address=address,
        port=port.port,
        protocol=port.protocol,
        name=port.name,
        backends=tuple(offer.backend for offer in used),
        weights=compute_weights(used, rules.preferences),
        candidates=(*chosen, *candidates),
        spilling=selection.spilling,
    )


def _misfit(offer: Offer, port: ServicePort) -> Choice | None:
    if port.name and offer.names and port.name not in offer.names:
        return Choice(False, f"port name: it has {', '.join(sorted(offer.names))}, not {port.name}")
    if port.protocol == "SCTP" and offer.backend.port != port.port:
        return Choice(False, f"SCTP: its port {offer.backend.port} is not the service's {port.port}")
    return None


def _sctp_problems(frontend: Frontend) -> Iterable[str]:
    if frontend.protocol == "SCTP" and any(c.choice.reason.startswith("SCTP") for c in frontend.candidates):
        yield f"SCTP port {frontend.port}: targetPort must be the same, SCTP ports are not translated"


def _unmatched(offers: list[Offer], frontends: Iterable[Frontend]) -> Iterable[Candidate]:
    seen = {id(candidate.backend) for frontend in frontends for candidate in frontend.candidates}
    return (Candidate(offer.backend, UNMATCHED) for offer in offers if id(offer.backend) not in seen)


def _offers(local: LocalService, remotes: Mapping[str, Service], cluster: str) -> tuple[list[Offer], list[Candidate]]:
    """What may be used, ours first, then by cluster ID; and what may not, with the reason."""
    offers = _sorted(_local_offers(local, cluster))
    refused: list[Candidate] = []
    if not remotes:
        return offers, refused
    claimed = {(offer.backend.address, offer.backend.port, offer.backend.protocol) for offer in offers}
    for record in sorted(remotes.values(), key=lambda record: (record.cluster_id, record.cluster)):
        for offer in _sorted(_remote_offers(record)):
            backend = offer.backend
            key = (backend.address, backend.port, backend.protocol)
            if not record.shared:
                refused.append(Candidate(backend, NOT_SHARED))
            elif key in claimed:
                refused.append(Candidate(backend, ALSO_CLAIMED))
            else:
                claimed.add(key)
                offers.append(offer)
    return offers, refused


def _local_offers(service: LocalService, cluster: str) -> Iterable[Offer]:
    for each in service.backends:
        for backend, names in _ports(each.ip, each.ports, cluster):
            yield Offer(backend, names, each.state, True, each.node, _local_zones(each))


def _local_zones(backend: LocalBackend) -> frozenset[str] | None:
    return frozenset(backend.for_zones) if backend.for_zones else None


def _remote_offers(service: Service) -> Iterable[Offer]:
    zones = value_or(service.zones, {})
    for address, ports in (service.backends or {}).items():
        hints = [zone.name for zone in zones.get(address, Zone()).for_zones or ()]
        for backend, names in _ports(address, ports or {}, service.cluster):
            yield Offer(backend, names, for_zones=frozenset(hints) if hints else None)


def _ports(address: str, ports: PortMap, cluster: str) -> Iterable[tuple[Backend, frozenset[str]]]:
    """One backend per distinct protocol and port, with all the names that this one has."""
    ip = _parse(address)
    if len(ports) == 1:
        ((name, port),) = ports.items()
        yield Backend(ip, port.port, port.protocol or "TCP", cluster), frozenset((name,)) if name else _UNNAMED
        return
    named: dict[Backend, set[str]] = {}
    for name, port in ports.items():
        named.setdefault(Backend(ip, port.port, port.protocol or "TCP", cluster), set()).add(name)
    for backend, names in named.items():
        yield backend, frozenset(names - {""})


def _sorted(offers: Iterable[Offer]) -> list[Offer]:
    return sorted(offers, key=lambda o: (o.backend.address.packed, o.backend.port, o.backend.protocol))
