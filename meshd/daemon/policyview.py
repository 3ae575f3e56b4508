"""What the socket says of policy: the policies, a verdict with its rules."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from datapath.entries import IPAddress
from meshd.daemon.mesh import PODS
from meshd.daemon.parties import Parties
from policy.model import Direction, Mode, Policy
from policy.parsing import parse_policy
from policy.ports import ICMP, ICMPV6, PROTOCOLS
from policy.scope import Scope
from policy.selector import Labels, Selector
from wire.labels import CLUSTER_LABEL

if TYPE_CHECKING:
    from meshd.daemon.program import Daemon

Json = dict[str, Any]
Peers = tuple[Selector, ...]
SHUT = "entries of the policies do not fit into a map: nothing passes in this direction (`meshd status`)"
UNVERIFIED = "no cluster has announced the source (yet), and a policy selects the destination"
PODS_SHOWN = 3
_NUMBERS = {**PROTOCOLS, "ICMP": ICMP, "ICMPV6": ICMPV6}


class PolicyView:
    """Reads a daemon; changes nothing."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon, self._policing = daemon, daemon.policing
        self._parties = Parties(daemon)

    def routes(self) -> Mapping[str, Callable[..., object]]:
        return {
            "/v1/policies": self.policies,
            "/v1/policies/default-local": self.default_local,
            "/v1/policies/trace/{source}/{destination}/{protocol}/{port}": self.trace,
        }

    def findings(self) -> list[str]:
        """Policies that are invalid, pods that are shut and those that cannot be judged; never silently."""
        engine = self._policing.engine
        invalid = [f"{ref} is invalid: {policy.problem}" for ref, policy in engine.policies.items() if policy.problem]
        return [*invalid, *self._unenforced(), *self._shut(), *self._withheld()]

    def _shut(self) -> list[str]:
        shut = self._policing.shut
        directions = sorted({direction.label for each in shut.values() for direction in each})
        pods = sorted(self._daemon.mesh.addresses.local_pods.items())
        names = [self._parties.name(address) or address for address, identity in pods if identity in shut]
        if not names:
            return []
        reason = "entries of their policies do not fit; raise map_sizes"
        return [f"{' and '.join(directions)} shut for {_few(names)}: {reason}"]

    def _withheld(self) -> list[str]:
        pods = sorted(self._daemon.mesh.addresses.local_pods.items())
        waiting = self._policing.withheld
        names = [self._parties.name(address) or address for address, identity in pods if identity in waiting]
        return [f"{_few(names)}: nothing is known of the identity yet, policy waits for its labels"] if names else []

    def _unenforced(self) -> list[str]:
        local, policed = self._daemon.mesh.addresses.local_pods, self._policing.policed
        failing = {key: failure.reason for (_, key), failure in self._daemon.pods.retries.failures.items()}
        failing |= self._daemon.pods_without_interface()
        found = {
            self._parties.name(address) or address: failing[packed]
            for address, identity in sorted(local.items())
            if identity in policed and (packed := ip_address(address).packed) in failing
        }
        return [f"policy is not enforced for {_few(list(found))}: {next(iter(found.values()))}"] if found else []

    def policies(self) -> list[Json]:
        """Every policy of the own cluster, and the pods of this node that it holds for."""
        engine = self._policing.engine
        labels = {identity: engine.peers.labels.get(identity, {}) for identity in self._policing.policed}
        forced, audited = self._in_force(), self._audited()
        return [
            {
                "kind": str(ref.kind),
                "namespace": ref.namespace,
                "name": ref.name,
                "problem": policy.problem,
                "closes": sorted({d.label for section in policy.sections for d in section.closes}),
                "rules": sum(len(section.rules) for section in policy.sections),
                "pods": (pods := self._pods(policy, labels)),
                "in_force": [pod for pod in pods if pod in forced],
                "audited": [pod for pod in pods if pod in audited],
            }
            for ref, policy in sorted(engine.policies.items())
        ]

    def _pods(self, policy: Policy, labels: Mapping[int, Labels]) -> list[str]:
        return [
            f"{self._parties.name(address)} ({address})"
            for address, identity in sorted(self._daemon.mesh.addresses.local_pods.items())
            if identity in labels and any(section.subject.matches(labels[identity]) for section in policy.sections)
        ]

    def _in_force(self) -> set[str]:
        """The pods whose interface the kernel judges at, by the entries of now."""
        daemon = self._daemon
        wanted, held = daemon.policy.delta.desired["md_subject"], daemon.policy.delta.realised["md_subject"]
        pods = daemon.pods.delta
        return {
            f"{self._parties.name(address)} ({address})"
            for address, identity in daemon.mesh.addresses.local_pods.items()
            if (key := identity.to_bytes(4, sys.byteorder)) in held
            and held[key] == wanted.get(key)
            and (packed := ip_address(address).packed) in pods.realised[PODS]
            and packed not in daemon.pods_without_interface()
            and pods.realised[PODS][packed] == pods.desired[PODS].get(packed)
        }

    def _audited(self) -> set[str]:
        """The pods of which it is only told what a policy would drop."""
        return {
            f"{self._parties.name(address)} ({address})"
            for address, identity in self._daemon.mesh.addresses.local_pods.items()
            if self._policing.mode_of(identity) is Mode.AUDIT
        }

    def default_local(self) -> Json:
        """What each policy would select besides (or not any more) if policy-default-local-cluster were switched."""
        now = self._daemon.config.policy_default_local_cluster
        own, other = (Scope(self._daemon.config.cluster, default) for default in (now, not now))
        engine, changes = self._policing.engine, []
        for ref in sorted(engine.policies):
            document = self._policing.document(ref)  # perhaps newer than what the engine has: both are read from it
            policy, switched = (parse_policy(ref, document, scope) for scope in (own, other))
            if policy.problem or not (pairs := _changed(policy, switched)):
                continue
            moved = [known for known in engine.peers.labels.values() if any(_differ(*pair, known) for pair in pairs)]
            selectors = {str(s) for before, after in pairs for s in set(before).difference(after)}
            changes.append({"policy": str(ref), "selectors": sorted(selectors), "identities": len(moved)})
        return {"default_local": now, "changes": changes}

    def trace(self, source: str, destination: str, protocol: str, port: str) -> Json:
        """The verdict on a first packet, from the same function that computes the entries."""
        try:
            one, other = self._parties.address(source), self._parties.address(destination)
            number = _NUMBERS[protocol.upper()]
        except (ValueError, KeyError) as error:
            return {"error": f"{error}"}
        checks = [
            self._check(one, other, Direction.EGRESS, number, int(port)),
            self._check(other, one, Direction.INGRESS, number, int(port)),
        ]
        passes = all(check["passes"] for check in checks)
        return {
            "source": self._parties.who(one),
            "destination": self._parties.who(other),
            "passes": passes,
            "checks": checks,
        }

    def _check(self, subject: IPAddress, peer: IPAddress, direction: Direction, protocol: int, port: int) -> Json:
        engine, identity = self._policing.engine, self._parties.identity(subject)
        cluster = engine.peers.labels.get(identity, {}).get(CLUSTER_LABEL)
        if cluster != self._daemon.config.cluster:
            said = f"{cluster}'s own policies decide" if cluster else "no pod of this cluster"
            return {"direction": direction.label, "passes": True, "closed": False, "mode": "-", "by": [said]}
        mode = self._policing.mode_of(identity)
        verdict = engine.explain(identity, direction, self._parties.identity(peer), protocol, port)
        holding = engine.holding(identity)
        closed = holding.closed if holding else frozenset[Direction]()
        shut = direction in self._policing.shut.get(identity, ())
        unverified = direction in closed and direction is Direction.INGRESS and self._parties.is_unverified(peer)
        if shut:
            by = [SHUT]
        elif unverified:
            by = [UNVERIFIED]
        elif verdict.by:
            by = list(verdict.by)
        else:
            by = [self._closers(identity, direction)] if verdict.closed else ["no policy closes this direction"]
        allowed = verdict.allowed and not shut and not unverified
        passes = allowed or mode is not Mode.ENFORCE
        return {"direction": direction.label, "passes": passes, "allowed": allowed, "mode": str(mode), "by": by}

    def _closers(self, identity: int, direction: Direction) -> str:
        """Which policies let only pass what is allowed; of those that are invalid, nothing is."""
        engine = self._policing.engine
        labels = engine.peers.labels.get(identity, {})
        found = [
            f"{ref} (invalid)" if policy.problem else str(ref)
            for ref, policy in sorted(engine.policies.items())
            if any(direction in section.closes and section.subject.matches(labels) for section in policy.sections)
        ]
        return f"no rule allows it, closed by {_few(found)}"


def _changed(policy: Policy, other: Policy) -> list[tuple[Peers, Peers]]:
    """The peers of each rule that means others in the other reading of the same policy, in both."""
    readings = zip(policy.sections, other.sections, strict=True)
    rules = [pair for one, two in readings for pair in zip(one.rules, two.rules, strict=True)]
    return [(one.peers or (), two.peers or ()) for one, two in rules if one.peers != two.peers]


def _differ(one: Peers, two: Peers, labels: Labels) -> bool:
    return any(s.matches(labels) for s in one) is not any(s.matches(labels) for s in two)


def _few(names: list[str]) -> str:
    more = len(names) - PODS_SHOWN
    return ", ".join(names[:PODS_SHOWN]) + (f" and {more} more" if more > 0 else "")
