"""Can these clusters be one mesh? What they say of themselves, held against each other over all pairs. Pure."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from itertools import pairwise

from datapath.layout import MAPS
from meshd.controlplane import CERTIFICATE_MIN_DAYS
from meshd.daemon.firstlook import Heard
from meshd.daemon.prefixindex import PrefixIndex
from meshd.daemon.presence import HEARTBEAT_MAX_S
from routing.tunnel import BadTunnel, tunnel_of
from wire.keys import Kind
from wire.records import IPNetwork, Node

SHOWN = 10
"""Of one sort, for each pair of clusters."""
AHEAD_MAX_S = 5.0
FULL = 0.9
"""Share of a map from which on there is little room."""
BELIEVED = "a cluster believes itself, the others believe the lower cluster ID"
Claim = tuple[IPNetwork, str, str]
"""A PodCIDR, its cluster and node."""


def findings(clusters: Sequence[Heard]) -> list[str]:
    """A sentence for each thing that would not work, with what would be believed. The first cluster is this one."""
    found = [f"{heard.cluster}: {heard.problem}" for heard in clusters if heard.problem]
    known = [heard for heard in clusters if heard.config is not None]
    between = [*_ids(known), *_prefixes(known), *_addresses(known), *_frontends(known), *_tunnels(known)]
    return [*found, *between, *_clocks(known), *_certificates(known), *_room(known)]


def _ids(clusters: Sequence[Heard]) -> Iterator[str]:
    by_id: defaultdict[int, list[str]] = defaultdict(list)
    by_limit: defaultdict[int, list[str]] = defaultdict(list)
    for heard in clusters:
        by_id[heard.config.id if heard.config else 0].append(heard.cluster)
        by_limit[heard.max_clusters].append(heard.cluster)
    for number, names in by_id.items():
        if len(names) > 1:
            yield f"{' and '.join(names)} have the same ID {number}: give all but one another"
    if len(by_limit) > 1:
        said = "; ".join(f"{', '.join(names)}: {limit}" for limit, names in sorted(by_limit.items()))
        yield f"max_clusters must be the same in the whole mesh, it is {said}"


def _prefixes(clusters: Sequence[Heard]) -> Iterator[str]:
    """Neighbours in the order of their first addresses overlap, or nobody does: an outer one is carried along."""
    claimed = sorted(
        ((p, heard.cluster, node.name) for heard in clusters for node in heard.nodes for p in node.pod_cidrs()),
        key=lambda claim: (claim[0].version, int(claim[0].network_address), claim[0].prefixlen),
    )
    shown: defaultdict[frozenset[str], int] = defaultdict(int)
    widest: Claim | None = None
    for claim in claimed:
        if widest is not None and widest[0].overlaps(claim[0]):
            pair = frozenset((widest[1], claim[1]))
            shown[pair] += 1
            if shown[pair] <= SHOWN:
                both = f"PodCIDR {_claim_text(claim)} overlaps {_claim_text(widest)}"
                yield f"{both}: one of them is not reached; {BELIEVED}"
            if int(claim[0].broadcast_address) <= int(widest[0].broadcast_address):
                continue
        widest = claim
    for pair, count in shown.items():
        if count > SHOWN:
            yield f"and {count - SHOWN} more PodCIDRs of {' and '.join(sorted(pair))} overlap"


def _claim_text(claim: Claim) -> str:
    return f"{claim[0]} of {claim[1]}/{claim[2]}"


def _addresses(clusters: Sequence[Heard]) -> Iterator[str]:
    claims = sorted(
        (entry.ip, f"{heard.cluster}/{node.name}")
        for heard in clusters
        for node in heard.nodes
        for entry in node.addresses or ()
        if entry.type in ("InternalIP", "ExternalIP")
    )
    for (address, one), (same, other) in pairwise(claims):
        if address == same and one != other:
            yield f"node address {address} is said by {one} and by {other}"


def _frontends(clusters: Sequence[Heard]) -> Iterator[str]:
    """A pod behind an address that is a ClusterIP elsewhere is not reached from there."""
    cidrs = [(heard.cluster, prefix) for heard in clusters for node in heard.nodes for prefix in node.pod_cidrs()]
    everywhere = PrefixIndex(prefix for _, prefix in cidrs)
    for heard in clusters:
        inside = [(address, name) for address, name in sorted(heard.frontends.items()) if _is_in(address, everywhere)]
        for address, name in inside[:SHOWN]:
            owner, prefix = next((owner, prefix) for owner, prefix in cidrs if ip_address(address) in prefix)
            yield (
                f"ClusterIP {address} of {heard.cluster}'s {name} lies in PodCIDR {prefix} of {owner}: "
                "a pod with that address is not reached from there; give the services another range"
            )
        if len(inside) > SHOWN:
            yield f"and {len(inside) - SHOWN} more ClusterIPs of {heard.cluster} lie in PodCIDRs"


def _is_in(address: str, networks: PrefixIndex) -> bool:
    try:
        return networks.holds(ip_address(address))
    except ValueError:
        return False


def _clocks(clusters: Sequence[Heard]) -> Iterator[str]:
    for heard in clusters:
        age = heard.heartbeat_age_s
        if age is None:
            yield f"{heard.cluster}: no heartbeat that can be read: does its agent run?"
        elif age < -AHEAD_MAX_S:
            yield f"{heard.cluster}: its clock is {-age:.0f} s ahead of this machine's: set both by NTP"
        elif age > HEARTBEAT_MAX_S:
            yield f"{heard.cluster}: its last heartbeat is {age:.0f} s old: its agent is dead, or its clock behind"


def _certificates(clusters: Sequence[Heard]) -> Iterator[str]:
    for heard in clusters:
        if heard.certificate is not None and heard.certificate.days_left() < CERTIFICATE_MIN_DAYS:
            yield f"{heard.cluster}: its server's certificate ends in {heard.certificate.days_left()} days"


def _room(clusters: Sequence[Heard]) -> Iterator[str]:
    """Of the maps that hold what all clusters say, in the size that they have where nobody says otherwise."""
    needed = {
        "md_ipcache": sum(heard.counts.get(Kind.IP, 0) for heard in clusters),
        "md_node": sum(len(node.addresses or ()) for heard in clusters for node in heard.nodes),
        "md_cidrs": sum(len(node.pod_cidrs()) for heard in clusters for node in heard.nodes),
    }
    for name, count in needed.items():
        if count > FULL * MAPS[name].size:
            yield f"{name} has room for {MAPS[name].size}, all together need {count}: give the daemons more (map_sizes)"


def _tunnels(clusters: Sequence[Heard]) -> Iterator[str]:
    for heard in clusters:
        for node in heard.nodes:
            if problem := _tunnel_problem(node):
                yield f"{heard.cluster}/{node.name} announces {problem}"
                break


def _tunnel_problem(node: Node) -> str:
    try:
        tunnel_of(node)
    except BadTunnel as error:
        return str(error)
    return ""
