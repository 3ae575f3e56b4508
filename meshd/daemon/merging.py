"""The global services as this node sees them: what our own cluster and the others say of one name, as far as they are
believed. A service of min-healthy remembers which of its frontends let other clusters' backends in.
"""

from collections.abc import Mapping, Set
from ipaddress import ip_address
from typing import cast

from globalsvc.merge import FrontendName, GlobalService, Place, merge
from globalsvc.preferences import MIN_HEALTHY, ZONE_HINTS
from meshd.daemon.backends import PROTOCOLS
from meshd.daemon.services import Restored
from meshd.daemon.store import Store
from meshd.daemon.suspicion import Suspicion
from wire.keys import Kind
from wire.local import LocalService
from wire.records import Node, Service

ZONE_LABEL = "topology.kubernetes.io/zone"


class Merging:
    """`withdrawn`: clusters that are lost; whoever has the set changes it."""

    def __init__(self, store: Store, suspicion: Suspicion, *, own: str, node: str, withdrawn: Set[str]) -> None:
        self._store, self._suspicion, self._own, self._node = store, suspicion, own, node
        self._withdrawn = withdrawn
        self._zone = ""
        self._spilling: dict[str, dict[FrontendName, bool]] = {}
        self.restored: Restored | None = None
        """What the maps held at the start, until everybody has been heard."""

    def merge(self, name: str) -> GlobalService | None:
        """The global service of that name as of now."""
        local = self._local(name)
        if local is None:
            return None
        place = Place(self._own, self._node, self._zone)
        spilling = self._spilling.get(name) or self._spilling_at_start(local)
        return merge(local, self.remote(name), place=place, spilling=spilling)

    def renew(self, name: str) -> GlobalService | None:
        """The same, and remembers of which frontends min-healthy lets other clusters' backends in."""
        service = self.merge(name)
        self._spilling.pop(name, None)
        local = self._local(name)
        if service and local and MIN_HEALTHY in local.annotations:
            self._spilling[name] = {(f.address, f.port, f.protocol): f.spilling for f in service.frontends}
        return service

    def remote(self, name: str) -> dict[str, Service]:
        """What the other clusters say under this name, as far as it is believed."""
        found = {}
        for cluster in self._store.clusters:
            if cluster == self._own or cluster in self._withdrawn:
                continue
            if record := self._suspicion.believed_service(cluster, name):
                found[cluster] = record
        return found

    def move(self) -> set[str]:
        """This node's zone may be another one: the services for which that counts."""
        node = cast(Node | None, self._store.record(self._own, Kind.NODE, self._node))
        zone = ((node.labels if node else None) or {}).get(ZONE_LABEL, "")
        if zone == self._zone:
            return set()
        self._zone = zone
        records = cast(Mapping[str, LocalService], self._store.records(self._own, Kind.LOCAL_SERVICE))
        return {name for name, record in records.items() if ZONE_HINTS in record.annotations}

    def _local(self, name: str) -> LocalService | None:
        return cast(LocalService | None, self._store.record(self._own, Kind.LOCAL_SERVICE, name))

    def _spilling_at_start(self, local: LocalService) -> dict[FrontendName, bool]:
        """What the maps held at the start tells: whether there were backends that are not this cluster's."""
        if self.restored is None or MIN_HEALTHY not in local.annotations:
            return {}
        own = {ip_address(backend.ip) for backend in local.backends}
        found = {}
        for address in map(ip_address, local.cluster_ips):
            for port in local.ports:
                key = (address, port.port, PROTOCOLS.get(port.protocol, 0))
                if (endpoints := self.restored.frontends.get(key)) is not None:
                    found[address, port.port, port.protocol] = any(endpoint[0] not in own for endpoint in endpoints)
        return found
