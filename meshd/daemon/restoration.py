"""Reads back what the maps held at the start: frontends with their backends, numbers, and whose each backend is."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datapath.description import decode
from datapath.entries import Entry, IPAddress, ipcache_entry
from datapath.layout import Peer
from identity.numbering import cluster_of
from meshd.daemon.backends import Endpoint
from meshd.daemon.frontends import FrontendKey
from meshd.daemon.services import Restored

Dump = Mapping[str, Mapping[bytes, bytes]]


def peer_identity(value: bytes) -> int:
    """The identity in a value of md_ipcache or md_cidrs."""
    return int(Peer.from_buffer_copy(value).identity)


@dataclass(frozen=True, slots=True)
class Restoration:
    """`owner` says which cluster ID an address had at the start; 0: none that is known."""

    services: Restored
    ipcache: Mapping[bytes, bytes]
    max_clusters: int

    def owner(self, address: IPAddress) -> int:
        value = self.ipcache.get(ipcache_entry(address, identity=0, tunnel=None, remote=False).key)
        return cluster_of(peer_identity(value), max_clusters=self.max_clusters) if value else 0


def restore(dump: Dump, *, max_clusters: int) -> Restoration:
    """`dump` has the maps by name. Slots without their backend or frontend are left to be pruned."""
    numbers: dict[int, Endpoint] = {}
    for name in ("md_be4", "md_be6"):
        for facts in _facts(dump, name):
            numbers[facts["backend_id"]] = (facts["address"], facts["port"], facts["protocol"])
    slots: defaultdict[FrontendKey, dict[int, int]] = defaultdict(dict)
    counts: dict[FrontendKey, int] = {}
    for name in ("md_svc4", "md_svc6"):
        for facts in _facts(dump, name):
            key = (facts["address"], facts["port"], facts["protocol"])
            if "count" in facts:
                counts[key] = facts["count"]
            else:
                slots[key][facts["slot"]] = facts["backend_id"]
    frontends = {
        key: tuple(numbers[i] for slot, i in sorted(slots[key].items()) if slot <= count and i in numbers)
        for key, count in counts.items()
    }
    mark = next((int(facts["mark"]) for facts in _facts(dump, "md_numbers")), None)
    return Restoration(Restored(frontends, numbers, mark), dict(dump.get("md_ipcache", {})), max_clusters)


def _facts(dump: Dump, name: str) -> list[dict[str, Any]]:
    return [decode(Entry(name, key, value)) for key, value in dump.get(name, {}).items()]
