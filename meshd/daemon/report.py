"""What the socket says: everything with its age in seconds; null is "unknown", never 0."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from itertools import islice
from typing import TYPE_CHECKING, Any

from meshd.daemon.addresses import MAP as IPCACHE
from meshd.daemon.clusterfindings import cluster_findings
from meshd.daemon.explanation import explain_service, list_services, service_findings
from meshd.daemon.flowview import FlowView
from meshd.daemon.inspection import Inspection
from meshd.daemon.kernel import describe_entry
from meshd.daemon.lag import Lag
from meshd.daemon.mesh import PODS
from meshd.daemon.policyview import PolicyView
from meshd.daemon.prober import NO_EVIDENCE
from meshd.daemon.readiness import EVENTS
from meshd.daemon.routingreport import RoutingReport
from meshd.daemon.servercert import ServerCertificate
from meshd.daemon.store import ClusterState, Shelf
from meshd.daemon.verdictview import VerdictView
from meshd.reconcile.delta import UNKNOWN
from wire.keys import Kind

if TYPE_CHECKING:
    from meshd.daemon.program import Daemon
    from meshd.daemon.remote import Remote
    from meshd.reconcile.loop import Reconciler

FAILING_SHOWN = 10
Json = dict[str, Any]


class Report:
    """Reads a daemon; changes nothing."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._routing = RoutingReport(daemon)

    def routes(self) -> Mapping[str, Callable[..., object]]:
        return {
            **Inspection(self._daemon).routes(),
            **PolicyView(self._daemon).routes(),
            **VerdictView(self._daemon).routes(),
            "/v1/status": self.status,
            "/v1/plan": self._routing.plan,
            "/v1/flow/{source}/{destination}/{protocol}/{port}": FlowView(self._daemon).flow,
            "/v1/desired": self.desired,
            "/v1/realised": self.realised,
            "/v1/services": lambda: list_services(self._daemon),
            "/v1/services/{namespace}/{name}": lambda namespace, name: explain_service(
                self._daemon, f"{namespace}/{name}"
            ),
        }

    def desired(self) -> Json:
        return _entries(self._daemon.maps.delta.desired)

    def realised(self) -> Json:
        return _entries(self._daemon.maps.delta.realised)

    def status(self) -> Json:
        daemon, now = self._daemon, time.monotonic()
        clusters = [self._cluster(daemon.local, now), *(self._cluster(remote, now) for remote in daemon.remotes())]
        targets = [self._target(reconciler, now) for reconciler in daemon.targets]
        problems = dict(daemon.clustermesh.problems) if daemon.clustermesh else {}
        findings = self._findings(clusters, targets, problems)
        return {
            "cluster": daemon.config.cluster,
            "cluster_id": daemon.config.cluster_id,
            "node": daemon.config.node,
            "instance": daemon.config.name,
            "uptime_s": now - daemon.started,
            "state": "broken" if "local-synced" in daemon.readiness.missing else "degraded" if findings else "ok",
            "findings": findings,
            "events": {name: _age(daemon.readiness.reached.get(name), now) for name in EVENTS},
            "clustermesh_problems": problems,
            "clusters": clusters,
            "targets": targets,
            "routing": self._routing.summary(),
            "services": len(daemon.mesh.services),
            "maglev": daemon.mesh.services.tables(),
            "addresses": len(daemon.maps.delta.desired[IPCACHE]),
            "no_interface": self._without_interface(),
            "retained_backends": daemon.mesh.services.retained,
            "conflicts": [
                {"address": address, "claimed_by": claimants}
                for address, claimants in list(daemon.mesh.addresses.conflicts())[:FAILING_SHOWN]
            ],
        }

    def _without_interface(self) -> list[Json]:
        """Pods that the stack serves: their packets are tunnelled by it, and no policy holds for them."""
        without = islice(self._daemon.pods_without_interface().items(), FAILING_SHOWN)
        wanted = self._daemon.pods.delta.desired[PODS]
        return [
            {"address": str(ip_address(pod)), "reason": reason, "policy_selects": wanted.get(pod, b"")[4:] == b"\1"}
            for pod, reason in without
        ]

    def _findings(self, clusters: list[Json], targets: list[Json], problems: Mapping[str, str]) -> list[str]:
        found = [f"clustermesh file {name or 'folder'}: {reason}" for name, reason in problems.items()]
        for cluster in clusters:
            found += cluster_findings(cluster)
        for target in targets:
            if target["failing"]:
                found.append(f"{target['failing']} keys of {target['name']} cannot be written")
        found += service_findings(self._daemon)
        found += PolicyView(self._daemon).findings()
        found += self._foreign()
        found += self._routing.findings()
        found += [f"start-up: {event} is still missing" for event in self._daemon.readiness.missing]
        return found

    def _foreign(self) -> list[str]:
        """Another socket load balancer sees a connection before or after us: `docs/global-services.md`."""
        try:
            return list(self._daemon.foreign_programs())
        except OSError as error:
            return [f"the cgroup's programs cannot be listed: {error}"]

    def _cluster(self, remote: Remote, now: float) -> Json:
        state = self._daemon.store.clusters.get(remote.cluster) or ClusterState(remote.cluster)
        link = remote.link
        return {
            "cluster": remote.cluster,
            "cluster_id": state.scope.cluster_id if state.scope else None,
            "is_local": remote is self._daemon.local,
            "link": {
                "state": link.state,
                "reason": link.reason,
                "age_s": now - link.since,
                "target": link.target,
                "failures": link.failures,
                "connects": remote.connects,
                "lists": remote.relists.total(),
            },
            "lag": _lag(self._daemon.lags.of(remote.cluster)),
            "last_event_age_s": _age(state.last_event_at, now),
            "heartbeat_age_s": _age(link.heartbeat_at, now),
            "certificate_days_left": link.days_left(),
            "warnings": list(link.warnings),
            "slices_only": remote.slices_only,
            "presence": self._presence(remote, now),
            "server_certificate": _server(link.server),
            "synced": all(state.synced(kind) for kind in remote.kinds),
            "kinds": {str(kind): self._kind(remote, state, kind, now) for kind in remote.kinds},
        }

    def _presence(self, remote: Remote, now: float) -> Json:
        presence, prober = remote.presence, self._daemon.prober
        evidence = prober.evidence(remote.cluster) if prober and not remote.is_local else NO_EVIDENCE
        return {
            "state": presence.state,
            "reason": presence.reason,
            "state_age_s": now - presence.since,
            "lost_age_s": presence.age_s(now),
            "frozen": remote.frozen,
            "waiting_deletes": remote.waiting_deletes,
            "probed_nodes": evidence.nodes,
            "answers": evidence.answers,
            "rtt_ms": None if evidence.rtt_s is None else evidence.rtt_s * 1000,
            "loss": evidence.loss,
            "path_mtu": evidence.path_mtu,
            "underlay_mtu": self._daemon.ways.underlay_mtu() or None,
        }

    def _kind(self, remote: Remote, state: ClusterState, kind: Kind, now: float) -> Json:
        held = self._daemon.mesh.suspicion.quarantine.reasons(remote.cluster, kind)
        more = {"quarantined": sum(held.values()), "quarantine": dict(held), "over_quota": remote.beyond.get(kind, 0)}
        return _kind(state.shelves.get(kind) or Shelf(), now) | more

    def _target(self, reconciler: Reconciler, now: float) -> Json:
        failures = reconciler.retries.failures
        return {
            "name": reconciler.name,
            "in_sync": not failures and reconciler.in_sync_since is not None,
            "in_sync_age_s": _age(reconciler.in_sync_since, now),
            "desired": {name: len(entries) for name, entries in sorted(reconciler.delta.desired.items()) if entries},
            "realised": {name: len(entries) for name, entries in sorted(reconciler.delta.realised.items()) if entries},
            "waiting_to_be_pruned": reconciler.delta.unclaimed(),
            "failing": len(failures),
            "failing_keys": [
                {
                    "key": reconciler.shape.describe(*item),
                    "reason": failure.reason,
                    "age_s": now - failure.since,
                    "attempts": failure.attempts,
                    "next_try_s": max(0.0, failure.due - now),
                }
                for item, failure in list(failures.items())[:FAILING_SHOWN]
            ],
            "rounds": reconciler.rounds,
            "upserts": reconciler.upserts,
            "deletes": reconciler.deletes,
            "last_round": reconciler.last_round,
        }


def _kind(shelf: Shelf, now: float) -> Json:
    last = next(reversed(shelf.rejected.items()), None)
    return {
        "synced_age_s": _age(shelf.synced_at, now),
        "revision": shelf.revision or None,
        "offered": shelf.offered,
        "accepted": len(shelf.records),
        "rejected": len(shelf.rejected),
        "reasons": dict(shelf.reasons()),
        "last_rejected": last
        and {"name": last[0], "reason": last[1].reason, "detail": last[1].detail, "age_s": now - last[1].since},
    }


def _lag(lag: Lag | None) -> Json | None:
    """From a change's arrival to its end in the maps, of the cluster's last changes."""
    return None if lag is None else {"p50_ms": lag.p50 * 1000, "p99_ms": lag.p99 * 1000, "changes": lag.changes}


def _server(certificate: ServerCertificate | None) -> Json | None:
    if certificate is None:
        return None
    return {
        "names": list(certificate.names),
        "days_left": certificate.days_left(),
        "by_wildcard": certificate.by_wildcard,
    }


def _age(then: float | None, now: float) -> float | None:
    return None if then is None else now - then


def _entries(maps: Mapping[str, Mapping[bytes, bytes]]) -> Json:
    return {
        name: [describe_entry(name, key, value) for key, value in entries.items() if value != UNKNOWN]
        for name, entries in sorted(maps.items())
        if name != PODS
    }
