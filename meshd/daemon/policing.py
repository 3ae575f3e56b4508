"""Policy on this node: what the own cluster's policies and all clusters' identities mean for the pods that are here.

A reconciler of its own holds the entries (it runs before the ipcache's: an address is not announced to the datapath
before its identity is judged). A subject's entry, which puts a change into force, follows one round after its entries,
so that none that is to go is looked up any more; the first one of an identity comes right behind its entries, so that
no new pod is delivered to before it is judged.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Set
from typing import cast

import msgspec

from datapath.description import decode
from datapath.entries import Entry, IPNetwork
from datapath.policing import POLICY_RANK, policy_entry, subject_entry
from datapath.policylayout import Subject
from identity.numbering import cluster_of
from meshd.daemon.members import Members
from meshd.daemon.outside import Outside
from meshd.daemon.portnames import PortNames
from meshd.daemon.shortage import Shut, shut_directions
from meshd.daemon.store import Dirty, Store
from meshd.reconcile.delta import Delta
from meshd.reconcile.target import Item
from policy.cidrs import FIRST as FIRST_CIDR
from policy.engine import Engine
from policy.model import Direction, Mode, PolicyKind, PolicyRef
from policy.parsing import parse_policy
from policy.scope import Scope
from policy.selector import pod_labels
from wire.keys import Kind
from wire.labels import NAMESPACE_LABEL
from wire.records import IP, Identity, Node

POLICY_MAPS = tuple(POLICY_RANK)
_NEEDED = (Kind.POLICY, Kind.IDENTITY)


class Policing:
    """`take` what changed in the store, then `refresh`. `changed_pods` is called with the identities whose pods are
    policed, those that are withheld, and those of which one of these is new or past. `failing` gives the entries of
    maps that could not be written.
    """

    def __init__(
        self,
        store: Store,
        members: Members,
        *,
        delta: Delta,
        changed_pods: Callable[[Set[int], Set[int], Set[int]], None],
        mode: Mode = Mode.AUDIT,
        namespaces: Mapping[str, Mode] | None = None,
        default_local: bool = True,
        failing: Callable[[], Iterable[Item]] = tuple,
    ) -> None:
        self._store, self._members, self._own = store, members, members.cluster
        self._delta, self._changed_pods = delta, changed_pods
        self._mode, self._namespaces = mode, dict(namespaces or {})
        self._enforces = Mode.ENFORCE in (mode, *self._namespaces.values())
        self._scope = Scope(self._own, default_local)
        self._failing = failing
        self.engine = Engine()
        self.policed: set[int] = set()
        """Identities of pods of this node that a policy holds for."""
        self.withheld: set[int] = set()
        """Identities of pods of this node whose labels are not known yet: where policy is enforced, these wait."""
        self.shut: Shut = {}
        """In these directions nothing passes, as a map is full."""
        self._here: set[int] = set()
        self._orphans: set[int] = set()
        self._ports = PortNames()
        self.outside = Outside(delta, lambda: self.engine.cidrs.numbers)
        self._due: set[int] = set()
        self._found: dict[bytes, bytes] = {}
        self._postponed: set[int] = set()
        self._computed = False
        self._judged: object = None

    def restore(self, outside: Mapping[bytes, bytes], subjects: Mapping[bytes, bytes]) -> None:
        """What md_outside and md_subject held at the start: prefixes keep their numbers, and pods that are judged are
        judged on until our own cluster has said what holds for them.
        """
        self._found = dict(subjects)
        self.policed = {int.from_bytes(key, sys.byteorder) for key in subjects}
        self._changed_pods(self.policed, self.withheld, self.policed)
        facts = [decode(Entry("md_outside", key, value)) for key, value in outside.items()]
        numbers = {cast(IPNetwork, f["prefix"]): cast(int, f["identity"]) for f in facts}
        self.engine.cidrs.restore({prefix: n for prefix, n in numbers.items() if n >= FIRST_CIDR})

    def document(self, ref: PolicyRef) -> object:
        """The policy as it was written, None if it is gone."""
        raw = self._store.record(self._own, Kind.POLICY, f"{ref.kind}/{ref.namespace or '-'}/{ref.name}")
        return msgspec.json.decode(cast(msgspec.Raw, raw)) if raw is not None else None

    def mode_of(self, identity: int) -> Mode:
        """By the namespace of the identity, else the cluster's."""
        namespace = self.engine.peers.labels.get(identity, {}).get(NAMESPACE_LABEL, "")
        return self._namespaces.get(namespace, self._mode)

    def set_here(self, identities: Set[int]) -> None:
        """The identities of this node's pods."""
        moved = self._here ^ identities
        self._here = set(identities)
        for identity in moved:
            if identity in self._orphans and identity not in identities:
                self._orphans.discard(identity)
                self.engine.set_identity(identity, None)
            self._place(identity)

    def take(self, dirty: Dirty) -> None:
        """These names changed in the store."""
        for (cluster, kind), names in dirty.items():
            if kind is Kind.POLICY and cluster == self._own:
                if self._computed:
                    self._resume()
                for name in names:
                    self._take_policy(name)
            elif kind is Kind.IDENTITY:
                for name in names:
                    self._take_identity(cluster, name)
            elif kind is Kind.IP:
                self._take_ips(cluster, names)
            elif kind is Kind.NODE:
                for name in names:
                    self.outside.put_node(cluster, name, cast(Node | None, self._store.record(cluster, kind, name)))

    def refresh(self) -> bool:
        """Brings desired up to date; True if there is something for the next round."""
        waiting = self._found or self._postponed
        if waiting and all(
            state.synced(Kind.IDENTITY) and state.synced(Kind.IP) for state in self._store.clusters.values()
        ):
            self._resume()
        self._heed_shortage()
        for identity in self._due:
            self._put_into_force(identity)
        self._due = set()
        if self._is_told():
            self._compute()
            self._computed = True
            self._prune()
        return bool(self._due)

    def _is_told(self) -> bool:
        """What is in force at the start stays so until our own cluster has told its policies, its pods and their
        identities' labels, and all of it is known here.
        """
        needed = _NEEDED if self._computed else (*_NEEDED, Kind.IP)
        waiting = any((self._own, kind) in self._store.dirty for kind in needed)
        return not waiting and self._store.synced(self._own, needed)

    def _resume(self) -> None:
        """Until all clusters have been heard after a start, entries of those that were not stand as they were found:
        connections need not be judged again because of them. A policy that changes ends the wait.
        """
        self._found = {}
        self._due |= self._postponed
        self._postponed = set()

    def feels_shortage(self) -> bool:
        """Whether a round made room, or had none, so that another direction must be shut or opened."""
        return self.shut != shut_directions(self.engine, self._delta, self._failing())

    def _heed_shortage(self) -> None:
        before, self.shut = self.shut, shut_directions(self.engine, self._delta, self._failing())
        self._due |= {i for i in before.keys() | self.shut.keys() if before.get(i) != self.shut.get(i)}

    def _put_into_force(self, identity: int) -> None:
        """The subject's entry, for entries that a round has tried to write."""
        if (holding := self.engine.holding(identity)) is None:
            return
        audit, shut = self.mode_of(identity) is Mode.AUDIT, self.shut.get(identity, ())
        entry = subject_entry(identity, revision=holding.revision, closed=holding.closed, audit=audit, shut=shut)
        if _differ_in_revision(self._found.get(entry.key), entry.value):
            self._postponed.add(identity)
            self._delta.want(entry.map, entry.key, self._found[entry.key])
        else:
            self._delta.want(entry.map, entry.key, entry.value)

    def _compute(self) -> None:
        update = self.engine.compute()
        for network, number in update.cidrs.items():
            self.outside.want(network, number)
        for (subject, direction, peer, block), allowed in update.entries.items():
            entry = policy_entry(subject, direction, peer, *block, allowed=bool(allowed))
            self._delta.want(entry.map, entry.key, None if allowed is None else entry.value)
        for identity, holding in update.subjects.items():
            if holding is not None:
                if identity.to_bytes(4, sys.byteorder) in self._delta.realised["md_subject"]:
                    self._due.add(identity)
                else:
                    self._put_into_force(identity)
                continue
            self._due.discard(identity)
            self._postponed.discard(identity)
            self._delta.want("md_subject", identity.to_bytes(4, sys.byteorder), None)
        policed = {identity for identity in self._here if self.engine.holds(identity)}
        withheld = self._here - self.engine.peers.labels.keys() if self._enforces else set[int]()
        for identity in withheld ^ self.withheld:
            self._withhold(identity, identity in withheld)
        if moved := (policed ^ self.policed) | (withheld ^ self.withheld):
            self.policed, self.withheld = policed, withheld
            self._changed_pods(policed, withheld, moved)

    def _withhold(self, identity: int, withheld: bool) -> None:
        """What the stack would deliver to such a pod is not let out of the tunnel."""
        key, value = identity.to_bytes(4, sys.byteorder), None
        if withheld and (mode := self.mode_of(identity)) is not Mode.OFF:
            audit = mode is Mode.AUDIT
            value = subject_entry(identity, revision=0, closed=Direction, audit=audit, shut=Direction).value
        if self.engine.holding(identity) is None:
            self._delta.want("md_subject", key, value)

    def _take_policy(self, name: str) -> None:
        kind, _, rest = name.partition("/")
        namespace, _, bare = rest.partition("/")
        if kind not in list(PolicyKind):
            return
        ref = PolicyRef(PolicyKind(kind), "" if namespace == "-" else namespace, bare)
        document = self.document(ref)
        self.engine.set_policy(ref, parse_policy(ref, document, self._scope) if document is not None else None)

    def _take_identity(self, cluster: str, name: str) -> None:
        """The labels of an identity that pods here have are not forgotten while they have it."""
        record = cast(Identity | None, self._store.record(cluster, Kind.IDENTITY, name))
        identity = int(name)
        if record is None and identity in self._here:
            self._orphans.add(identity)
            return
        self._orphans.discard(identity)
        self.engine.set_identity(identity, pod_labels(record.labels) if record else None)
        if identity in self._here:
            self._place(identity)

    def _place(self, identity: int) -> None:
        self.engine.set_present(identity, identity in self._here and self.mode_of(identity) is not Mode.OFF)

    def _take_ips(self, cluster: str, names: Iterable[str]) -> None:
        records = cast(Mapping[str, IP], self._store.records(cluster, Kind.IP))
        touched = self._ports.put_all(cluster, ((name, records.get(name)) for name in names))
        for identity in touched:
            self.engine.set_named_ports(identity, self._ports.of(identity))

    def _prune(self) -> None:
        """What was found at the start goes when those who own it have been heard."""
        if not self._delta.unclaimed():
            return
        states = self._store.clusters.values()
        facts = frozenset(state.name for state in states if state.synced(Kind.IDENTITY) and state.synced(Kind.IP))
        present = frozenset(state.name for state in states)
        if (facts, present) == self._judged:
            return
        self._judged = (facts, present)
        everybody = facts == present
        self._delta.prune("md_policy", lambda key, value: self._peer_heard(key, facts, everybody))
        if self._own in facts:
            holds = self.engine.holding  # the entry of one that holds is wanted with the next round
            self._delta.prune("md_subject", lambda key, value: holds(int.from_bytes(key, sys.byteorder)) is None)
        if everybody and all(state.synced(Kind.NODE) for state in states):
            self._delta.prune("md_outside", lambda key, value: True)
        else:
            self._judged = None

    def _peer_heard(self, key: bytes, heard: frozenset[str], everybody: bool) -> bool:
        peer = cast(int, decode(Entry("md_policy", key, bytes(4)))["peer"])
        number = 0 if peer >= FIRST_CIDR else cluster_of(peer, max_clusters=self._members.max_clusters)
        owner = self._members.name_of(number) if number else self._own
        return owner in heard if owner in self._store.clusters else everybody


def _differ_in_revision(found: bytes | None, wanted: bytes) -> bool:
    """Otherwise they are equal, or one of them is not there."""
    if found is None:
        return False
    one, other = Subject.from_buffer_copy(found), Subject.from_buffer_copy(wanted)
    return bool(one.flags == other.flags and one.revision != other.revision)
