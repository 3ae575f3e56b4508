"""What the socket says besides status: quarantine, what happened, differences, lists, why an address is as it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from datapath.entries import cidr_entry, ipcache_entry
from meshd.daemon.kernel import describe_entry
from meshd.daemon.mesh import PODS
from meshd.reconcile.delta import UNKNOWN
from wire.keys import Kind
from wire.labels import format_labels
from wire.records import IP, Identity, Node

if TYPE_CHECKING:
    from meshd.daemon.program import Daemon
    from meshd.reconcile.loop import Reconciler

LISTED_MAX = 20_000
"""Rows of one answer: making it must not keep the daemon from its work."""
DIFFED: Mapping[str, tuple[str, ...]] = {
    "ipcache": ("md_cidrs", "md_ipcache"),
    "node": ("md_node",),
    "service": ("md_affm", "md_be4", "md_be6", "md_maglev", "md_svc4", "md_svc6"),
}
Json = dict[str, Any]


class Inspection:
    """Reads a daemon; changes nothing."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def routes(self) -> Mapping[str, Callable[..., object]]:
        return {
            "/v1/diff/{what}": self.diff,
            "/v1/quarantine": self.quarantine,
            "/v1/events/{after}": self.events,
            "/v1/list/{what}": self.listed,
            "/v1/ip/{address}": self.explain_ip,
        }

    def diff(self, what: str) -> list[Json]:
        """Every entry that is desired and not realised, or the other way round: of `all` maps of clusters and services,
        or of those that hold `ipcache`, `node`, `service` or (as policy) `identity`.
        """
        reconciler = self._daemon.policy if what == "identity" else self._daemon.maps
        known = reconciler.delta.desired.keys() | reconciler.delta.realised.keys()
        maps = sorted(known - {PODS} if what in ("all", "identity") else known & set(DIFFED.get(what, ())))
        rows = (row for map in maps for row in self._rows(map, reconciler) if not row["in_sync"])
        return list(islice(rows, LISTED_MAX))

    def quarantine(self) -> list[Json]:
        """Records that are well-formed but not believed, and those that are not well-formed."""
        now, rows = time.monotonic(), []
        for cluster, kind, name, held in self._daemon.mesh.suspicion.quarantine.items():
            rows.append(_refused(cluster, kind, name, held.reason, "", now - held.since))
        for cluster, state in self._daemon.store.clusters.items():
            for kind, shelf in state.shelves.items():
                for name, bad in shelf.rejected.items():
                    rows.append(_refused(cluster, kind, name, bad.reason, bad.detail, now - bad.since))
        for prefix, (cluster, believed) in self._daemon.mesh.prefixes.blocked.items():
            rows.append(_refused(cluster, "prefix", str(prefix), "conflict", f"{believed} is believed", None))
        return rows[:LISTED_MAX]

    def events(self, after: str) -> Json:
        """What happened since the event of that number."""
        now, timeline = time.monotonic(), self._daemon.timeline
        found = timeline.after(int(after) if after.isdigit() else 0)
        rows = [
            {"number": h.number, "age_s": now - h.at, "event": h.event, "cluster": h.cluster, "detail": h.detail}
            for h in found
        ]
        return {"last": timeline.last, "events": rows}

    def listed(self, what: str) -> Json:
        """All rows of `ipcache`, `node` or `identity`, up to LISTED_MAX, and how many there are."""
        makers: Mapping[str, Callable[[], tuple[Iterator[Json], int]]] = {
            "ipcache": self._ipcache,
            "node": lambda: self._records(Kind.NODE, self._node),
            "identity": lambda: self._records(Kind.IDENTITY, _identity),
        }
        rows, total = makers[what]() if what in makers else (iter(()), 0)
        return {"rows": list(islice(rows, LISTED_MAX)), "total": total}

    def _ipcache(self) -> tuple[Iterator[Json], int]:
        reconciler, maps = self._daemon.maps, DIFFED["ipcache"]
        total = sum(len(reconciler.delta.realised[map]) for map in maps)
        return (row for map in maps for row in self._rows(map, reconciler)), total

    def _rows(self, map: str, reconciler: Reconciler) -> Iterator[Json]:
        delta = reconciler.delta
        desired, realised = delta.desired[map], delta.realised[map]
        for key in list(dict.fromkeys((*desired, *realised))):
            wanted, held = desired.get(key), realised.get(key)
            if wanted is None and held is None:
                continue
            yield {
                "map": map,
                "desired": _describe(map, key, wanted),
                "realised": _describe(map, key, held),
                "in_sync": wanted == held,
                "reason": failure.reason if (failure := reconciler.retries.failures.get((map, key))) else "",
            }

    def _records(self, kind: Kind, row: Callable[[str, str, Any], Json]) -> tuple[Iterator[Json], int]:
        shelves = [(name, state.shelf(kind).records) for name, state in self._daemon.store.clusters.items()]
        rows = (row(cluster, name, record) for cluster, records in shelves for name, record in records.items())
        return rows, sum(len(records) for _, records in shelves)

    def _node(self, cluster: str, name: str, node: Node) -> Json:
        held = self._daemon.mesh.suspicion.quarantine.find(cluster, Kind.NODE, name)
        target = self._daemon.prober.nodes(cluster).get(name) if self._daemon.prober else None
        return {
            "cluster": cluster,
            "name": name,
            "address": str(node.node_ip(4) or node.node_ip(6) or "none"),
            "pod_cidrs": [str(prefix) for prefix in node.pod_cidrs()],
            "refused": held.reason if held else "",
            "answers": target.answers() if target else None,
            "path_mtu": target.path.found if target else None,
        }

    def explain_ip(self, address: str) -> Json:
        """Who says what about an address, who is believed and why, and what the kernel has."""
        try:
            asked = ip_address(address.partition("%")[0])  # no cluster says a link's own address with its scope
        except ValueError:
            return {"address": address, "reason": "is not an IP address", "claims": [], "realised": []}
        claims = [*self._ip_claims(str(asked)), *self._prefix_claims(asked)]
        return {
            "address": str(asked),
            "instance": self._daemon.config.name,
            "reason": "" if claims else "no cluster says anything about it",
            "claims": claims,
            "realised": self._realised(asked),
        }

    def _ip_claims(self, name: str) -> Iterator[Json]:
        winner = next(iter(self._daemon.mesh.addresses.claimants(name)), "")
        for cluster in self._daemon.store.clusters:
            record = cast(IP | None, self._daemon.store.record(cluster, Kind.IP, name))
            if record is not None:
                says = f"pod or host with identity {record.id} on {record.host_ip or 'no node'}"
                yield self._claim(cluster, Kind.IP, name, says, "" if winner == cluster else winner or "nobody")

    def _prefix_claims(self, address: IPv4Address | IPv6Address) -> Iterator[Json]:
        prefixes = self._daemon.mesh.prefixes
        for cluster, state in self._daemon.store.clusters.items():
            for name, node in cast(Mapping[str, Node], state.shelf(Kind.NODE).records).items():
                for prefix in node.pod_cidrs():
                    if prefix.version == address.version and address in prefix:
                        winner, says = prefixes.believed(prefix), f"PodCIDR {prefix} of node {name}"
                        other = "" if winner == f"{cluster}/{name}" else winner or "nobody"
                        yield self._claim(cluster, Kind.NODE, name, says, other)

    def _claim(self, cluster: str, kind: Kind, name: str, says: str, other: str) -> Json:
        """`other` is believed instead, if anybody is."""
        now = time.monotonic()
        held = self._daemon.mesh.suspicion.quarantine.find(cluster, kind, name)
        reason = held.reason if held else f"{other} is believed" if other else ""
        remotes: Iterable[Any] = (self._daemon.local, *self._daemon.remotes())
        presence = next((remote.presence for remote in remotes if remote.cluster == cluster), None)
        return {
            "cluster": cluster,
            "says": says,
            "believed": not reason,
            "reason": reason,
            "held_age_s": now - held.since if held else None,
            "presence": str(presence.state) if presence else "unknown",
            "lost_age_s": presence.age_s(now) if presence else None,
        }

    def _realised(self, address: IPv4Address | IPv6Address) -> list[str]:
        """The exact entry, else the longest prefix: what a packet meets."""
        realised = self._daemon.maps.delta.realised
        exact = ipcache_entry(address, identity=0, tunnel=None, remote=False)
        if value := realised[exact.map].get(exact.key):
            return [describe_entry(exact.map, exact.key, value)]
        for length in range(address.max_prefixlen, -1, -1):
            prefix = ip_network((address, length), strict=False)
            entry = cidr_entry(prefix, identity=0, tunnel=None, remote=True)
            if value := realised[entry.map].get(entry.key):
                return [describe_entry(entry.map, entry.key, value)]
        return []


def _identity(cluster: str, name: str, identity: Identity) -> Json:
    return {"cluster": cluster, "identity": int(name), "labels": format_labels(identity.labels)}


def _describe(map: str, key: bytes, value: bytes | None) -> str | None:
    return None if value is None else "unknown" if value == UNKNOWN else describe_entry(map, key, value)


def _refused(cluster: str, kind: str, name: str, reason: str, detail: str, age_s: float | None) -> Json:
    return {"cluster": cluster, "kind": kind, "name": name, "reason": reason, "detail": detail, "age_s": age_s}
