"""Why each backend of a service is used or not, as the daemon's socket says it: the choices are those that the merge
made (globalsvc.selection), with what the kernel holds beside them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from globalsvc.merge import Candidate, Frontend, GlobalService
from meshd.daemon.backends import PROTOCOLS, Endpoint, endpoint_text, is_usable
from meshd.daemon.frontends import FrontendKey

if TYPE_CHECKING:
    from meshd.daemon.program import Daemon

Json = dict[str, Any]
PROBLEMS_SHOWN = 10
RETAINED = "kept: its cluster was not heard since the daemon started"


def list_services(daemon: Daemon) -> list[Json]:
    """Every global service of this cluster with its frontends and how many backends these have."""
    services, strangers = daemon.mesh.services, _strangers(daemon)
    return [
        {
            "name": name,
            "frontends": [
                {"frontend": _frontend_text(key), "backends": len(services.placed(key))} for key in summary.frontends
            ],
            "problems": [*summary.problems, *strangers.get(name, ())],
        }
        for name, summary in sorted(services.summaries.items())
    ]


def service_findings(daemon: Daemon) -> list[str]:
    """A sentence for each problem of a service, the first few."""
    known, strangers = daemon.mesh.services.with_problems, _strangers(daemon)
    bad = known | {name: (*known.get(name, ()), *sentences) for name, sentences in strangers.items()}
    found = [f"service {name}: {problem}" for name in sorted(bad)[:PROBLEMS_SHOWN] for problem in bad[name]]
    if len(bad) > PROBLEMS_SHOWN:
        found.append(f"and {len(bad) - PROBLEMS_SHOWN} more services with problems: `meshd service list`")
    return found


def explain_service(daemon: Daemon, name: str) -> Json:
    """The reason for each backend of one service."""
    service = daemon.mesh.merging.merge(name)
    answer: Json = {
        "name": name,
        "cluster": daemon.config.cluster,
        "node": daemon.config.node,
        "instance": daemon.config.name,
        "is_global": service is not None and service.is_global,
        "links": {remote.cluster: str(remote.link.state) for remote in daemon.remotes()},
    }
    if service is None or not service.is_global:
        others = sorted(daemon.mesh.merging.remote(name))
        offered = f"; {', '.join(others)} would share it" if others else ""
        unclear = "whether it is to be global cannot be understood"
        reason = unclear if service else f"this cluster has no Service {name} that is annotated global{offered}"
        return answer | {"reason": reason, "problems": list(service.problems) if service else []}
    return answer | {
        "problems": [*service.problems, *_strangers(daemon).get(name, ())],
        "session_affinity_timeout_s": service.session_affinity_timeout_s,
        "balancing": str(service.balancing or daemon.mesh.services.balancing),
        "frontends": [_frontend(daemon, service, frontend) for frontend in service.frontends],
        "unmatched": [_candidate(candidate) for candidate in service.unmatched],
    }


def _strangers(daemon: Daemon) -> dict[str, list[str]]:
    """A sentence for each cluster that a service's annotations name and that is none here: one letter too many would
    drain nothing and say nothing.
    """
    known = {daemon.config.cluster, *(remote.cluster for remote in daemon.remotes())}
    return {
        name: [f"its annotations name {cluster}, which is no cluster of this mesh (yet)" for cluster in sorted(strange)]
        for name, clusters in daemon.mesh.services.naming.items()
        if (strange := clusters - known)
    }


def _frontend(daemon: Daemon, service: GlobalService, frontend: Frontend) -> Json:
    services = daemon.mesh.services
    if not is_usable(frontend.port, frontend.protocol):
        text = f"{frontend.address}:{frontend.port}/{frontend.protocol}"
        return {"frontend": text, "reason": "its port or protocol cannot be carried", "backends": []}
    key = (frontend.address, frontend.port, PROTOCOLS[frontend.protocol])
    weights = frontend.weights or (1,) * len(frontend.backends)
    shares = dict(zip(frontend.backends, (weight / sum(weights) for weight in weights), strict=True))
    backends = [_candidate(c) | {"share": shares.get(c.backend, 0.0)} for c in frontend.candidates]
    for candidate, row in zip(frontend.candidates, backends, strict=True):
        if row["used"]:
            endpoint = (candidate.backend.address, candidate.backend.port, PROTOCOLS[candidate.backend.protocol])
            row["not_realised"] = _not_realised(daemon, endpoint)
    known = {(c.backend.address, c.backend.port) for c in frontend.candidates if c.choice.used}
    backends += [
        {"backend": endpoint_text(endpoint), "cluster": "", "used": True, "reason": RETAINED, "share": None}
        for endpoint in services.retained_of(key)
        if endpoint[:2] not in known
    ]
    owner = services.owner(key)
    return {
        "frontend": _frontend_text(key),
        "port_name": frontend.name,
        "reason": "" if owner == service.name else f"the frontend belongs to {owner or 'nobody'}",
        "not_realised": _failure(daemon, key),
        "spilling": frontend.spilling,
        "backends": backends,
    }


def _candidate(candidate: Candidate) -> Json:
    backend = candidate.backend
    host = f"[{backend.address}]" if backend.address.version == 6 else str(backend.address)
    return {
        "backend": f"{host}:{backend.port}/{backend.protocol}",
        "cluster": backend.cluster,
        "used": candidate.choice.used,
        "reason": candidate.choice.reason,
    }


def _not_realised(daemon: Daemon, endpoint: Endpoint) -> str:
    """Why the kernel does not have the backend, "" if it has."""
    item = daemon.mesh.services.backend_item(endpoint)
    if item is None:
        return "not asked for yet"
    failure = daemon.maps.retries.failures.get(item)
    return failure.reason if failure else "" if item[1] in daemon.maps.delta.realised[item[0]] else "being written"


def _failure(daemon: Daemon, key: FrontendKey) -> str:
    """Why the kernel's frontend is not as it is wanted, "" if it is."""
    item = daemon.mesh.services.frontend_item(key)
    failure = daemon.maps.retries.failures.get(item)
    return failure.reason if failure else ""


def _frontend_text(key: FrontendKey) -> str:
    return endpoint_text(key)
