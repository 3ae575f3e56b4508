"""From what is known to the keys that etcd shall hold, incrementally: only what is dirty is computed again.

Pure. Computing everything afresh from the same objects and the same identity numbers gives the same keys; a property
test holds the two equal.
"""

from collections.abc import Iterable, Mapping, Set
from typing import TypeVar

from globalsvc.annotations import namespace_is_global, namespace_problems
from identity.allocation import Allocator
from meshd.agent.endpoints import endpoints_of
from meshd.agent.index import ObjectName
from meshd.agent.objects import ObjectKind, Ref
from meshd.agent.publish.addresses import AddressOwners
from meshd.agent.publish.identities import IdentityNamespaces, IdentityUse
from meshd.agent.publish.ips import ip_record, label_text, own_addresses
from meshd.agent.publish.local import local_service
from meshd.agent.publish.nodes import node_record
from meshd.agent.publish.pod_cidrs import PodCidrs
from meshd.agent.publish.policies import policy_name
from meshd.agent.publish.scope import Scope
from meshd.agent.publish.services import read_annotations, service_problems, service_record
from meshd.agent.state import Dirty, LocalState
from wire import keys
from wire.codec import encode
from wire.keys import Kind

T = TypeVar("T")

KeyChanges = dict[str, bytes | None]
"""Keys of etcd with the value that they shall have; None: the key shall not be there."""


class Publisher:
    """Reads `state` and `identities`; it changes neither.

    A pod whose labels have no number yet waits: `wanted` names those labels, `settled` lets it go on.
    """

    def __init__(self, scope: Scope, state: LocalState, identities: Allocator) -> None:
        self._scope = scope
        self._state = state
        self._identities = identities
        self._dirty = Dirty()
        self._dirty_numbers: set[int] = set()
        self._dirty_addresses: set[str] = set()
        self._namespaces = IdentityNamespaces()
        self._use = IdentityUse()
        self._waiting: dict[str, set[str]] = {}
        self._refused: dict[str, str] = {}
        self._owners = AddressOwners(lambda name: state.pods[name].is_terminating)
        self._pod_cidrs = PodCidrs()
        self._problems: dict[Ref, tuple[str, ...]] = {}

    def mark(self, dirty: Dirty) -> None:
        """These have to be computed again."""
        self._dirty.nodes |= dirty.nodes
        self._dirty.namespaces |= dirty.namespaces
        self._dirty.services |= dirty.services
        self._dirty.pods |= dirty.pods
        self._dirty.policies |= dirty.policies

    def settled(self, numbers: Iterable[int]) -> None:
        """The allocator has labels for these numbers: the pods that waited for them go on."""
        for number in numbers:
            labels = self._identities.labels_of(number) or ""
            self._namespaces.add(number, labels)
            self._use.exist([number])
            self._dirty_numbers.add(number)
            self._refused.pop(labels, None)
            self._dirty_addresses |= self._waiting.pop(labels, set())

    def restored(self) -> None:
        """The allocator's numbers may all be others: every pod and identity is computed again."""
        self._dirty_numbers |= self._namespaces.replace(self._identities.allocations())
        self._use.exist_only(self._identities.allocations())
        self._dirty.pods |= self._state.pods.keys()
        self._refused.clear()

    def refuse(self, labels: str, reason: str) -> None:
        """There is no number for these labels: their pods are not published, rather than with a wrong identity."""
        self._refused[labels] = reason
        self._dirty_addresses |= self._waiting.get(labels, set())

    def freed(self, number: int) -> None:
        """The allocator has given this number up."""
        self._use.gone(number)
        self._dirty_numbers.add(number)

    def unused(self) -> Set[int]:
        """Numbers that no address uses, as of the last `compute` that left nothing dirty."""
        return self._use.unused

    def wanted(self) -> list[str]:
        """Labels that pods wait for."""
        unowned = [labels for labels, ips in self._waiting.items() if not any(map(self._owners.owner, ips))]
        for labels in unowned:
            del self._waiting[labels]
        return [labels for labels in self._waiting if labels not in self._refused]

    def problems(self) -> Mapping[Ref, tuple[str, ...]]:
        """Objects that are published with something left out, or not at all, and why."""
        return self._problems

    def shared_addresses(self) -> list[tuple[str, list[str]]]:
        """Addresses that several pods say are theirs, the one that is believed first."""
        return self._owners.conflicts()

    def overlapping_cidrs(self) -> list[tuple[Ref, str]]:
        """Nodes with a PodCIDR that overlaps another node's, and what becomes of it."""
        return [(Ref(ObjectKind.NODE, "", node), what) for node, what in self._pod_cidrs.overlaps()]

    @property
    def is_dirty(self) -> bool:
        """`compute` has more to say."""
        dirty = self._dirty
        return bool(
            dirty.nodes
            or dirty.namespaces
            or dirty.services
            or dirty.pods
            or dirty.policies
            or self._dirty_numbers
            or self._dirty_addresses
        )

    def compute(self, limit: int) -> KeyChanges:
        """Keys that may have changed since the last calls, of at most `limit` objects of each kind.

        Who owns which address is settled for all dirty pods first: so an address that moves from one to another is
        handed over, never absent.
        """
        dirty, changes = self._dirty, KeyChanges()
        for namespace in _take(dirty.namespaces, len(dirty.namespaces)):
            self._namespace(namespace)
            self._dirty_numbers |= self._namespaces.numbers_of(namespace)
        for pod in _take(dirty.pods, len(dirty.pods)):
            self._claim_addresses(pod)
        for node in _take(dirty.nodes, limit):
            changes[self._key(Kind.NODE, node)] = self._node(node)
        for number in _take(self._dirty_numbers, limit):
            changes[self._key(Kind.IDENTITY, str(number))] = self._identity(number)
        for service in _take(dirty.services, limit):
            self._service(service, changes)
        for policy in _take(dirty.policies, limit):
            changes[self._key(Kind.POLICY, policy_name(policy))] = self._policy(policy)
        for address in _take(self._dirty_addresses, limit):
            self._address(address, changes)
        return changes

    def _key(self, kind: Kind, name: str) -> str:
        return keys.record(kind, self._scope.cluster, name)

    def is_global(self, namespace: str) -> bool:
        """Whether other clusters may see what is in this namespace."""
        known = self._state.namespaces.get(namespace)
        default = self._scope.namespaces_are_global
        return namespace_is_global(known.metadata.annotations, default=default) if known else default

    def _report(self, ref: Ref, problems: Iterable[str]) -> None:
        self._problems.pop(ref, None)
        if found := tuple(problems):
            self._problems[ref] = found

    def _namespace(self, name: str) -> None:
        known = self._state.namespaces.get(name)
        problems = namespace_problems(known.metadata.annotations) if known else ()
        self._report(Ref(ObjectKind.NAMESPACE, "", name), problems)

    def node_value(self, name: str) -> bytes | None:
        """The record of a node as it is published, None if there is no such node."""
        node = self._state.nodes.get(name)
        return encode(node_record(node, self._scope)[0]) if node else None

    def _node(self, name: str) -> bytes | None:
        ref = Ref(ObjectKind.NODE, "", name)
        node = self._state.nodes.get(name)
        if node is None:
            self._report(ref, ())
            self._pod_cidrs.set(name, ())
            return None
        record, problems = node_record(node, self._scope)
        self._report(ref, problems)
        self._pod_cidrs.set(name, record.pod_cidrs())
        return encode(record)

    def _policy(self, ref: Ref) -> bytes | None:
        policy = self._state.policies.get(ref)
        return policy.rules if policy else None

    def _identity(self, number: int) -> bytes | None:
        labels = self._identities.labels_of(number)
        if not labels or not self.is_global(self._namespaces.namespace_of(number)):
            return None
        return labels.encode()

    def _service(self, name: ObjectName, changes: KeyChanges) -> None:
        path = "/".join(name)
        shared, local = self._key(Kind.SERVICE, path), self._key(Kind.LOCAL_SERVICE, path)
        changes[shared] = changes[local] = None
        service = self._state.services.get(name)
        if service is None:
            self._report(Ref(ObjectKind.SERVICE, *name), ())
            return
        annotations = read_annotations(service)
        self._report(Ref(ObjectKind.SERVICE, *name), annotations.problems)
        if not (annotations.is_global or annotations.is_doubtful) or not self.is_global(name[0]):
            return
        endpoints, odd = endpoints_of(self._state, name)
        self._report(Ref(ObjectKind.SERVICE, *name), (*annotations.problems, *service_problems(service), *odd))
        changes[local] = encode(local_service(service, name[0], endpoints))
        if annotations.shared:
            changes[shared] = encode(service_record(service, name[0], endpoints, self._scope))

    def _claim_addresses(self, name: ObjectName) -> None:
        pod = self._state.pods.get(name)
        addresses: list[str] = []
        odd: list[str] = []
        if pod is not None and self.is_global(name[0]):
            addresses, odd = own_addresses(pod)
        self._report(Ref(ObjectKind.POD, *name), odd)
        self._dirty_addresses |= self._owners.claim(name, addresses)

    def _address(self, ip: str, changes: KeyChanges) -> None:
        """What stands there stays until the owner has a number; it goes if there is none to have, or no owner."""
        key = self._key(Kind.IP, ip)
        owner = self._owners.owner(ip)
        if owner is None:
            self._use.use(ip, None)
            changes[key] = None
            return
        pod = self._state.pods[owner]
        labels = label_text(pod, owner[0], self._state.namespaces.get(owner[0]), self._scope)
        number = self._identities.number_of(labels)
        if number is not None:
            self._use.use(ip, number)
            changes[key] = encode(ip_record(pod, owner[0], ip, number))
            return
        self._waiting.setdefault(labels, set()).add(ip)
        if (reason := self._refused.get(labels)) is not None:
            self._report(Ref(ObjectKind.POD, *owner), (reason,))
            self._use.use(ip, None)
            changes[key] = None


def _take(pending: set[T], limit: int) -> list[T]:
    """Removes and returns up to `limit` of them."""
    taken = [pending.pop() for _ in range(min(limit, len(pending)))]
    if not pending:
        pending.clear()  # else a set that was large once is searched through at every later pop
    return taken
