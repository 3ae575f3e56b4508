"""What the socket says of policy: the policies, a verdict with its rules, what the kernel told."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, cast

from datapath.description import decode
from datapath.entries import Entry, IPAddress, ipcache_entry
from datapath.policing import outside_entry
from datapath.ringbuf import PacketEvent
from identity.numbering import FIRST_UNRESERVED, Reserved, cluster_of
from meshd.daemon.mesh import PODS
from meshd.daemon.verdicts import is_drop
from policy.model import Direction, Mode, Policy
from policy.parsing import parse_policy
from policy.ports import ICMP, ICMPV6, PROTOCOL_NAMES, PROTOCOLS
from policy.scope import Scope
from policy.selector import Labels
from wire.keys import Kind
from wire.labels import CLUSTER_LABEL
from wire.records import IP, value_or

if TYPE_CHECKING:
    from meshd.daemon.program import Daemon

Json = dict[str, Any]
SHUT = "entries of the policies do not fit into a map: nothing passes in this direction (`meshd status`)"
PODS_SHOWN = 3
_NUMBERS = {**PROTOCOLS, "ICMP": ICMP, "ICMPV6": ICMPV6}


class PolicyView:
    """Reads a daemon; changes nothing."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon, self._policing = daemon, daemon.policing

    def routes(self) -> Mapping[str, Callable[..., object]]:
        return {
            "/v1/policies": self.policies,
            "/v1/policies/default-local": self.default_local,
            "/v1/policies/trace/{source}/{destination}/{protocol}/{port}": self.trace,
            "/v1/verdicts/{after}": self.verdicts,
        }

    def findings(self) -> list[str]:
        """Policies that are invalid, and pods that are shut; never silently."""
        engine = self._policing.engine
        invalid = [f"{ref} is invalid: {policy.problem}" for ref, policy in engine.policies.items() if policy.problem]
        shut = sorted({d.label for directions in self._policing.shut.values() for d in directions})
        if not shut:
            return invalid
        pods = ", ".join(self._shut_pods()[:PODS_SHOWN])
        reason = "entries of their policies do not fit; raise map_sizes"
        return [*invalid, f"{' and '.join(shut)} shut for {pods}: {reason}"]

    def policies(self) -> list[Json]:
        """Every policy of the own cluster, and the pods of this node that it holds for."""
        engine = self._policing.engine
        labels = {identity: engine.peers.labels.get(identity, {}) for identity in self._policing.policed}
        forced = self._in_force()
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
            }
            for ref, policy in sorted(engine.policies.items())
        ]

    def _pods(self, policy: Policy, labels: Mapping[int, Labels]) -> list[str]:
        return [
            f"{self._name(address)} ({address})"
            for address, identity in sorted(self._daemon.mesh.addresses.local_pods.items())
            if identity in labels and any(section.subject.matches(labels[identity]) for section in policy.sections)
        ]

    def _shut_pods(self) -> list[str]:
        pods = sorted(self._daemon.mesh.addresses.local_pods.items())
        return [self._name(address) or address for address, identity in pods if identity in self._policing.shut]

    def _in_force(self) -> set[str]:
        """The pods whose interface the kernel judges at, by the entries of now."""
        daemon = self._daemon
        wanted, held = daemon.policy.delta.desired["md_subject"], daemon.policy.delta.realised["md_subject"]
        pods = daemon.pods.delta
        return {
            f"{self._name(address)} ({address})"
            for address, identity in daemon.mesh.addresses.local_pods.items()
            if (key := identity.to_bytes(4, sys.byteorder)) in held
            and held[key] == wanted.get(key)
            and (packed := ip_address(address).packed) in pods.realised[PODS]
            and pods.realised[PODS][packed] == pods.desired[PODS].get(packed)
        }

    def default_local(self) -> Json:
        """What each policy would select besides (or not any more) if policy-default-local-cluster were switched."""
        now = self._daemon.config.policy_default_local_cluster
        other = Scope(self._daemon.config.cluster, not now)
        engine, changes = self._policing.engine, []
        for ref, policy in sorted(engine.policies.items()):
            switched = parse_policy(ref, self._policing.document(ref), other)
            before = {s for section in policy.sections for rule in section.rules for s in rule.peers or ()}
            after = {s for section in switched.sections for rule in section.rules for s in rule.peers or ()}
            if before != after and not policy.problem:
                labels = engine.peers.labels
                moved = {
                    identity
                    for identity, known in labels.items()
                    if any(s.matches(known) for s in before) is not any(s.matches(known) for s in after)
                }
                selectors = sorted(map(str, before - after))
                changes.append({"policy": str(ref), "selectors": selectors, "identities": len(moved)})
        return {"default_local": now, "changes": changes}

    def trace(self, source: str, destination: str, protocol: str, port: str) -> Json:
        """The verdict on a first packet, from the same function that computes the entries."""
        try:
            one, other = self._address(source), self._address(destination)
            number = _NUMBERS[protocol.upper()]
        except (ValueError, KeyError) as error:
            return {"error": f"{error}"}
        checks = [
            self._check(one, other, Direction.EGRESS, number, int(port)),
            self._check(other, one, Direction.INGRESS, number, int(port)),
        ]
        passes = all(check["passes"] for check in checks)
        return {"source": self._who(one), "destination": self._who(other), "passes": passes, "checks": checks}

    def verdicts(self, after: str) -> Json:
        """Events with a greater number than `after`, at most what is kept."""
        events, lost = self._daemon.verdicts.since(int(after))
        told = self._daemon.verdicts.told
        return {"told": told, "lost": lost, "events": [self._event(number, event) for number, event in events]}

    def _check(self, subject: IPAddress, peer: IPAddress, direction: Direction, protocol: int, port: int) -> Json:
        engine, identity = self._policing.engine, self._identity(subject)
        cluster = engine.peers.labels.get(identity, {}).get(CLUSTER_LABEL)
        if cluster != self._daemon.config.cluster:
            said = f"{cluster}'s own policies decide" if cluster else "no pod of this cluster"
            return {"direction": direction.label, "passes": True, "closed": False, "mode": "-", "by": [said]}
        mode = self._policing.mode_of(identity)
        verdict = engine.explain(identity, direction, self._identity(peer), protocol, port)
        shut = direction in self._policing.shut.get(identity, ())
        if shut:
            by = [SHUT]
        elif verdict.by:
            by = list(verdict.by)
        else:
            by = ["no rule allows it"] if verdict.closed else ["no policy closes this direction"]
        allowed = verdict.allowed and not shut
        passes = allowed or mode is not Mode.ENFORCE
        return {"direction": direction.label, "passes": passes, "allowed": allowed, "mode": str(mode), "by": by}

    def _event(self, number: int, event: PacketEvent) -> Json:
        direction = Direction(event.direction)
        verdict = self._policing.engine.explain(event.subject, direction, event.peer, event.protocol, event.port)
        return {
            "number": number,
            "time_s": event.time_ns / 1e9,
            "verdict": "drop" if is_drop(event) else "audit" if event.reason else "allow",
            "reason": event.reason.label,
            "direction": direction.label,
            "source": {**self._who(event.source), "port": event.source_port},
            "destination": {**self._who(event.destination), "port": event.port},
            "protocol": PROTOCOL_NAMES.get(event.protocol, str(event.protocol)),
            "by": list(verdict.by),
            "length": event.length,
        }

    def _address(self, text: str) -> IPAddress:
        """An address, or `[cluster/]namespace/pod`. Raises ValueError."""
        if "/" not in text:
            return ip_address(text)
        *cluster, namespace, pod = text.split("/")
        for name in cluster or [self._daemon.config.cluster]:
            state = self._daemon.store.clusters.get(name)
            for record in (state.shelf(Kind.IP).records if state else {}).values():
                ip = cast(IP, record)
                if ip.mask is None and (value_or(ip.namespace, ""), value_or(ip.pod_name, "")) == (namespace, pod):
                    return ip_address(ip.ip)
        raise ValueError(f"no pod {text} is known")

    def _identity(self, address: IPAddress) -> int:
        """As the datapath finds it: the ipcache, then prefixes outside the mesh, else the world."""
        key = ipcache_entry(address, identity=0, tunnel=None, remote=False).key
        value = self._daemon.maps.delta.desired["md_ipcache"].get(key)
        if value is not None:
            facts = decode(Entry("md_ipcache", key, value))
            identity = cast(int, facts["identity"])
            foreign = facts["remote"] and identity <= 255 and identity != Reserved.REMOTE_NODE
            return 0 if foreign else identity
        outside, cidrs = self._daemon.policy.delta.desired["md_outside"], self._daemon.maps.delta.desired["md_cidrs"]
        keys = [
            outside_entry(ip_network((address, length), strict=False), 0).key
            for length in range(address.max_prefixlen, -1, -1)
        ]
        found = next((key for key in keys if key in outside), None)
        number = cast(int, decode(Entry("md_outside", found, outside[found]))["identity"]) if found else None
        if any(key in cidrs for key in keys) and (number is None or number >= FIRST_UNRESERVED):
            return int(Reserved.UNKNOWN)  # in a PodCIDR, and no pod that was announced
        return int(Reserved.WORLD) if number is None else number

    def _who(self, address: IPAddress) -> Json:
        identity = self._identity(address)
        labels = self._policing.engine.peers.labels.get(identity, {})
        return {
            "address": str(address),
            "identity": identity,
            "cluster": labels.get(CLUSTER_LABEL, "") or self._cluster(identity),
            "pod": self._name(str(address)),
            "labels": [f"{key}={value}" if value else key for key, value in sorted(labels.items())],
        }

    def _cluster(self, identity: int) -> str:
        number = cluster_of(identity, max_clusters=self._daemon.config.max_clusters) if identity < 1 << 24 else 0
        return self._daemon.members.name_of(number) or "" if number else ""

    def _name(self, address: str) -> str:
        for state in self._daemon.store.clusters.values():
            record = cast(IP | None, state.record(Kind.IP, address))
            if record is not None and value_or(record.pod_name, ""):
                return f"{value_or(record.namespace, '')}/{value_or(record.pod_name, '')}"
        return ""
