"""Which imported slices there are, which there shall be, and what has to be done about the difference. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from globalsvc.annotations import parse_annotations
from meshd.agent.imports.slices import imported_slices, says_the_same, source_of
from meshd.agent.index import Index, ObjectName
from meshd.agent.objects import EndpointSlice, ObjectKind
from meshd.agent.state import Changes, LocalState
from wire.records import Service

#: "false" on a headless global service: its DNS name keeps to its own cluster.
SYNC_ANNOTATION = "service.cilium.io/global-sync-endpoint-slices"


class Verb(IntEnum):
    """In the order in which they are done: an address that moves between slices is never absent."""

    CREATE = 1
    UPDATE = 2
    DELETE = 3


@dataclass(frozen=True, slots=True)
class Operation:
    """What shall be done to one slice, which is as it shall be, or as it was (DELETE)."""

    verb: Verb
    slice: EndpointSlice

    @property
    def name(self) -> ObjectName:
        return self.slice.metadata.namespace, self.slice.metadata.name


class Others(Protocol):
    """The other clusters."""

    def services(self, name: ObjectName) -> Mapping[str, Service]:
        """What they say under this name, by cluster, as far as it is believed."""

    def may_go(self, cluster: str) -> bool:
        """Whether what it does not say is gone: it was heard, or it has left."""


class Plan:
    """`take` what the source says; `operations` for what is `dirty`; `done` after each that succeeded."""

    def __init__(self, state: LocalState, is_global: Callable[[str], bool]) -> None:
        self._state, self._is_global = state, is_global
        self.slices: dict[ObjectName, EndpointSlice] = {}
        """Ours, as the API server has them."""
        self._by_service: Index[ObjectName] = Index()
        self.dirty: set[ObjectName] = set()
        self.dirty_nodes: set[str] = set()
        self.synced = self.whole = False

    def take(self, changes: Changes) -> None:
        """What `state` has taken in just now."""
        self.synced |= changes.synced
        self.whole = changes.whole
        for ref in (*changes.deletes, *changes.upserts):
            name = (ref.namespace, ref.name)
            match ref.kind:
                case ObjectKind.ENDPOINT_SLICE:
                    self._keep(name, self._state.slices.get(name))
                case ObjectKind.SERVICE:
                    self.dirty.add(name)
                case ObjectKind.NAMESPACE:
                    self.dirty.update(self._state.services_in(ref.name))
                case ObjectKind.NODE:
                    self.dirty_nodes.add(ref.name)

    def doubt(self) -> None:
        """Everything has to be looked at again."""
        self.dirty |= self._state.services.keys()
        self.dirty |= {(name[0], known.service) for name, known in self.slices.items()}
        self.dirty_nodes |= self._state.nodes.keys()

    def operations(self, service: ObjectName, others: Others) -> list[Operation]:
        """In the order in which they have to be done."""
        wanted: dict[str, EndpointSlice] = {}
        if self._takes_part(service):
            for cluster, record in sorted(others.services(service).items()):
                wanted |= imported_slices(service, cluster, record)
        known = {name[1]: self.slices[name] for name in self._by_service.names(service)}
        found = [Operation(Verb.CREATE, wanted[name]) for name in wanted.keys() - known.keys()]
        found += [
            Operation(Verb.UPDATE, each)
            for name, each in wanted.items()
            if name in known and not says_the_same(known[name], each)
        ]
        if self.whole or service in self._state.services:
            gone = [known[name] for name in known.keys() - wanted.keys()]
            found += [
                Operation(Verb.DELETE, each)
                for each in gone
                if not self._takes_part(service) or others.may_go(source_of(each))
            ]
        return sorted(found, key=lambda operation: (operation.verb, operation.name))

    def done(self, operation: Operation) -> None:
        """The API server has taken it; what it says of it comes later."""
        self._keep(operation.name, None if operation.verb is Verb.DELETE else operation.slice)

    def _takes_part(self, name: ObjectName) -> bool:
        service = self._state.services.get(name)
        if service is None or not service.is_headless or not self._is_global(name[0]):
            return False
        annotations = service.metadata.annotations
        return parse_annotations(annotations).is_global and annotations.get(SYNC_ANNOTATION, "").lower() != "false"

    def _keep(self, name: ObjectName, known: EndpointSlice | None) -> None:
        if (old := self.slices.pop(name, None)) is not None:
            self._by_service.discard((name[0], old.service), name)
            self.dirty.add((name[0], old.service))
        if known is not None and known.is_ours:
            self.slices[name] = known
            self._by_service.add((name[0], known.service), name)
            self.dirty.add((name[0], known.service))
