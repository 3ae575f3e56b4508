"""What is known of this cluster: its objects, and the way from a changed object to what depends on it.

Pure. What one changed object causes costs what depends on it, never the number of objects.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import cast

from meshd.agent.index import Index, ObjectName
from meshd.agent.objects import (
    ZONE_LABEL,
    EndpointSlice,
    KubernetesObject,
    Namespace,
    Node,
    ObjectKind,
    Pod,
    Policy,
    Ref,
    Service,
)
from meshd.agent.sharing import Sharing

LabelOf = tuple[str, str, str]
"""Namespace, label key, label value."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a source saw change. `synced`: it has told of every object that it can tell of, once.

    `whole`: there is nothing that it could not read, so what it has not told of does not exist.
    """

    upserts: Mapping[Ref, KubernetesObject] = field(default_factory=dict)
    deletes: Set[Ref] = frozenset()
    synced: bool = False
    whole: bool = True


@dataclass(slots=True)
class Dirty:
    """What has to be computed again."""

    nodes: set[str] = field(default_factory=set)
    namespaces: set[str] = field(default_factory=set)
    services: set[ObjectName] = field(default_factory=set)
    pods: set[ObjectName] = field(default_factory=set)
    policies: set[Ref] = field(default_factory=set)


class LocalState:
    """The objects of this cluster. `apply` is the only way to change it."""

    def __init__(self) -> None:
        self.namespaces: dict[str, Namespace] = {}
        self.nodes: dict[str, Node] = {}
        self.pods: dict[ObjectName, Pod] = {}
        self.services: dict[ObjectName, Service] = {}
        self.slices: dict[ObjectName, EndpointSlice] = {}
        self.policies: dict[Ref, Policy] = {}
        self._sharing = Sharing()
        self._pods_by_label: Index[LabelOf] = Index()
        self._pods_by_namespace: Index[str] = Index()
        self._pods_by_node: Index[str] = Index()
        self._services_by_label: Index[LabelOf] = Index()
        self._services_by_namespace: Index[str] = Index()
        self._slices_by_service: Index[ObjectName] = Index()

    def apply(self, changes: Changes) -> Dirty:
        """Takes the changes in; returns everything that may have to be published differently."""
        dirty = Dirty()
        for ref in changes.deletes:
            self._set(ref, None, dirty)
        for ref, known in changes.upserts.items():
            if self._get(ref) != known:
                self._set(ref, known, dirty)
        return dirty

    def count(self) -> dict[str, int]:
        """How many objects of each kind are known."""
        return {
            str(ObjectKind.NAMESPACE): len(self.namespaces),
            str(ObjectKind.NODE): len(self.nodes),
            str(ObjectKind.POD): len(self.pods),
            str(ObjectKind.SERVICE): len(self.services),
            str(ObjectKind.ENDPOINT_SLICE): len(self.slices),
            **Counter(str(ref.kind) for ref in self.policies),
        }

    def slices_of(self, service: ObjectName) -> list[EndpointSlice]:
        """The service's own slices by name, without those imported from other clusters."""
        return [self.slices[name] for name in sorted(self._slices_by_service.names(service))]

    def pods_of(self, service: ObjectName) -> list[Pod]:
        """The pods that a known service's selector selects, by name; none without a selector."""
        selector = self.services[service].spec.selector
        if not selector:
            return []
        pools = [self._pods_by_label.names(label) for label in _labels_of(service, selector)]
        pools = [self._pods_by_label.names(label) for label in _labels_of(service, selector)]
        narrowest = min(pools, key=len)
        candidates = (self.pods[name] for name in sorted(narrowest))
        return [pod for pod in candidates if selector.items() <= pod.metadata.labels.items()]

    def services_in(self, namespace: str) -> Collection[ObjectName]:
        """The services of a namespace, in no order."""
        return self._services_by_namespace.names(namespace)

    def zone_of(self, node: str) -> str:
        """The zone that a node is labelled with, "" if it is unknown."""
        known = self.nodes.get(node)
        return known.metadata.labels.get(ZONE_LABEL, "") if known else ""

    def _get(self, ref: Ref) -> KubernetesObject | None:
        name = (ref.namespace, ref.name)
        match ref.kind:
            case ObjectKind.NAMESPACE:
                return self.namespaces.get(ref.name)
            case ObjectKind.NODE:
                return self.nodes.get(ref.name)
            case ObjectKind.POD:
                return self.pods.get(name)
            case ObjectKind.SERVICE:
                return self.services.get(name)
            case ObjectKind.ENDPOINT_SLICE:
                return self.slices.get(name)
            case _:
                return self.policies.get(ref)

    def _set(self, ref: Ref, known: KubernetesObject | None, dirty: Dirty) -> None:
        name = (ref.namespace, ref.name)
        match ref.kind:
            case ObjectKind.NAMESPACE:
                self._set_namespace(ref.name, cast("Namespace | None", known), dirty)
            case ObjectKind.NODE:
                self._set_node(ref.name, cast("Node | None", known), dirty)
            case ObjectKind.POD:
                self._set_pod(name, cast("Pod | None", known), dirty)
            case ObjectKind.SERVICE:
                self._set_service(name, cast("Service | None", known), dirty)
            case ObjectKind.ENDPOINT_SLICE:
                self._set_slice(name, cast("EndpointSlice | None", known), dirty)
            case _:
                self._set_policy(ref, cast("Policy | None", known), dirty)

    def _set_namespace(self, name: str, known: Namespace | None, dirty: Dirty) -> None:
        self.namespaces.pop(name, None)
        if known is not None:
            self.namespaces[name] = known
        dirty.namespaces.add(name)
        dirty.services.update(self._services_by_namespace.names(name))
        dirty.pods.update(self._pods_by_namespace.names(name))

    def _set_node(self, name: str, known: Node | None, dirty: Dirty) -> None:
        zone = self.zone_of(name)
        self.nodes.pop(name, None)
        if known is not None:
            self.nodes[name] = known
        dirty.nodes.add(name)
        if self.zone_of(name) != zone:
            for pod in self._pods_by_node.names(name):
                self._mark_services_of(pod, dirty)

    def _set_pod(self, name: ObjectName, known: Pod | None, dirty: Dirty) -> None:
        dirty.pods.add(name)
        if (old := self.pods.get(name)) is not None:
            self._mark_services_of(name, dirty)
            for label in _labels_of(name, old.metadata.labels):
                self._pods_by_label.discard(label, name)
            self._pods_by_namespace.discard(name[0], name)
            self._pods_by_node.discard(old.spec.node_name, name)
            del self.pods[name]
        if known is not None:
            known = self.pods[name] = self._sharing.share(known)
            for label in _labels_of(name, known.metadata.labels):
                self._pods_by_label.add(label, name)
            self._pods_by_namespace.add(name[0], name)
            self._pods_by_node.add(known.spec.node_name, name)
            self._mark_services_of(name, dirty)

    def _mark_services_of(self, pod: ObjectName, dirty: Dirty) -> None:
        """Marks the services whose endpoints are computed from this pod."""
        labels = self.pods[pod].metadata.labels
        for label in _labels_of(pod, labels):
            for service in self._services_by_label.names(label):
                if (
                    not self._slices_by_service.names(service)
                    and self.services[service].spec.selector.items() <= labels.items()
                ):
                    dirty.services.add(service)

    def _set_service(self, name: ObjectName, known: Service | None, dirty: Dirty) -> None:
        dirty.services.add(name)
        if (old := self.services.pop(name, None)) is not None and (label := _first_label(name, old)):
            self._services_by_label.discard(label, name)
        self._services_by_namespace.discard(name[0], name)
        if known is not None:
            self.services[name] = known
            self._services_by_namespace.add(name[0], name)
            if label := _first_label(name, known):
                self._services_by_label.add(label, name)

    def _set_slice(self, name: ObjectName, known: EndpointSlice | None, dirty: Dirty) -> None:
        if (old := self.slices.pop(name, None)) is not None:
            dirty.services.add((name[0], old.service))
            self._slices_by_service.discard((name[0], old.service), name)
        if known is not None:
            self.slices[name] = known = self._sharing.share_slice(known)
            if not known.is_imported:
                dirty.services.add((name[0], known.service))
                self._slices_by_service.add((name[0], known.service), name)

    def _set_policy(self, ref: Ref, known: Policy | None, dirty: Dirty) -> None:
        self.policies.pop(ref, None)
        if known is not None:
            self.policies[ref] = known
        dirty.policies.add(ref)


def _labels_of(name: ObjectName, labels: Mapping[str, str]) -> Iterator[LabelOf]:
    return ((name[0], key, value) for key, value in labels.items())


def _first_label(name: ObjectName, service: Service) -> LabelOf | None:
    """The label under which a service waits for pods: any one of its selector will do, every pod of it has it."""
    return next(_labels_of(name, service.spec.selector), None)
