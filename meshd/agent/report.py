"""What the agent says of itself at `/v1/status`."""

import time
from typing import TypedDict

from meshd.agent.agent import Agent


class Degraded(TypedDict):
    """Something that is published with a part left out, or not at all, and why."""

    where: str
    reasons: list[str]


def report(agent: Agent) -> dict[str, object]:
    """For the socket, as JSON. Ages in seconds."""
    return {
        "cluster": agent.config.cluster,
        "cluster_id": agent.config.cluster_id,
        "leader": agent.etcd_state.phase == "writing",
        "etcd": _etcd(agent),
        "source": {
            "name": agent.source.name,
            "synced": agent.desired.synced,
            "whole": agent.desired.whole,
            "objects": agent.state.count(),
            "bad": [str(problem) for problem in agent.source.problems],
        },
        "published": _published(agent),
        "seconds": {name: round(spent, 3) for name, spent in seconds(agent).items()},
        "identities": {"used": len(agent.desired.identities), "capacity": agent.desired.identities.capacity},
        "degraded": degraded(agent),
        "imported": _imported(agent),
    }


def _imported(agent: Agent) -> dict[str, object] | None:
    """The EndpointSlices of other clusters' backends; None: that was not asked for."""
    importer = agent.importer
    if importer is None:
        return None
    return {
        "slices": len(importer.plan.slices),
        "writes": importer.writes,
        "problems": {"/".join(name): reason for name, reason in sorted(importer.problems.items())},
        **(importer.clusters.report() if importer.clusters else {}),
    }


def degraded(agent: Agent) -> list[Degraded]:
    """Everything of that kind, sorted."""
    publisher = agent.desired.publisher
    found = {str(ref): list(reasons) for ref, reasons in publisher.problems().items()}
    for ref, reason in publisher.overlapping_cidrs():
        found.setdefault(str(ref), []).append(reason)
    for ip, pods in publisher.shared_addresses():
        found[ip] = [f"is claimed by {', '.join(pods)}: the first is used"]
    return [Degraded(where=where, reasons=reasons) for where, reasons in sorted(found.items())]


def seconds(agent: Agent) -> dict[str, float]:
    """What was spent on each part of the work since the process began."""
    spent = {"apply": agent.applying_s, "compute": agent.progress.computing_s, "write": agent.progress.writing_s}
    return {**agent.source.seconds, **spent}


def _etcd(agent: Agent) -> dict[str, object]:
    state = agent.etcd_state
    return {
        "endpoint": agent.config.etcd,
        "phase": state.phase,
        "age_s": round(time.monotonic() - state.since, 3),
        "error": state.error,
        "id": f"{agent.etcd.etcd_id:x}",
        "revision": agent.etcd.revision,
        "foreign_changes": agent.progress.foreign,
        "rival": agent.progress.rival,
        "generation": agent.progress.generation,
    }


def _published(agent: Agent) -> dict[str, object]:
    progress, ledger = agent.progress, agent.desired.ledger
    return {
        "keys": ledger.count(),
        "pending": ledger.pending,
        "announced": progress.announced.is_set(),
        "transactions": progress.transactions,
        "writes": progress.keys,
        "refused": progress.refused,
    }
