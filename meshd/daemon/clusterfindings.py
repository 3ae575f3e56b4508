"""What is wrong with a cluster, a sentence each: what, since when, why, and what to look at next. Pure."""

from collections.abc import Iterator
from typing import Any

from meshd.daemon.link import LinkState
from meshd.daemon.presence import HEARTBEAT_MAX_S, PresenceState

CERTIFICATE_MIN_DAYS = 7
Json = dict[str, Any]
_NEXT = {
    LinkState.REJECTED: "`meshd certs verify`, and its file in the clustermesh folder",
    LinkState.DISCONNECTED: "does its proxy run (`meshd status` there), and does a firewall let us to it?",
}


def cluster_findings(cluster: Json) -> list[str]:
    """Of a cluster as /v1/status has it."""
    name = cluster["cluster"]
    parts = (_link, _records, _presence, _certificates)
    return [f"{name}: {finding}" for part in parts for finding in part(cluster)]


def _link(cluster: Json) -> Iterator[str]:
    link = cluster["link"]
    if link["state"] != LinkState.READY:
        hint = f": {_NEXT[link['state']]}" if link["state"] in _NEXT else ""
        yield f"control link {link['state']} for {link['age_s']:.0f} s: {link['reason'] or 'starting'}{hint}"
    if cluster["slices_only"]:
        yield (
            "it exports services as EndpointSlices only, which meshd does not read: none are shared; "
            "let it export services too"
        )


def _records(cluster: Json) -> Iterator[str]:
    for kind, shelf in cluster["kinds"].items():
        if shelf["over_quota"]:
            yield (
                f"{kind} over its quota: at least {shelf['over_quota']} records are left out; "
                "more are let in by `meshd.quotas` in its file"
            )
        if shelf["quarantined"]:
            yield f"{shelf['quarantined']} {kind} in quarantine: {_counts(shelf['quarantine'])}: {_looked_at(kind)}"
        if shelf["rejected"]:
            last = shelf["last_rejected"]
            story = f"; the last {last['age_s']:.0f} s ago: {last['detail'] or last['name']}" if last else ""
            yield (
                f"{shelf['rejected']} of {shelf['offered']} {kind} records rejected: {_counts(shelf['reasons'])}{story}"
            )


def _presence(cluster: Json) -> Iterator[str]:
    presence, heartbeat = cluster["presence"], cluster["heartbeat_age_s"]
    if presence["frozen"]:
        yield (
            f"frozen, nothing of it is deleted: {presence['frozen']}: "
            "does its agent run, and write to its etcd (`meshd status` there)?"
        )
    if presence["state"] == PresenceState.WITHDRAWN:
        age = f"{presence['state_age_s']:.0f} s"
        yield f"withdrawn for {age}: {presence['reason']}: if it is gone for good, remove its file"
    elif presence["lost_age_s"] is not None and cluster["synced"]:
        yield f"STALE({presence['lost_age_s']:.0f} s): {presence['reason']}"
    if presence["answers"] is False:
        yield (
            f"none of its {presence['probed_nodes']} probed nodes answers through the tunnel: "
            "`meshd node list`, `meshd monitor --drops`"
        )
    if isinstance(heartbeat, float) and heartbeat > HEARTBEAT_MAX_S:
        yield f"last heartbeat {heartbeat:.0f} s ago: its agent may be dead (`meshd status` there)"


def _certificates(cluster: Json) -> Iterator[str]:
    server, days = cluster["server_certificate"], cluster["certificate_days_left"]
    if server and server["days_left"] < CERTIFICATE_MIN_DAYS:
        yield f"its server's certificate ends in {server['days_left']} days: `meshd certs rotate` there"
    if isinstance(days, int) and days < CERTIFICATE_MIN_DAYS:
        yield f"our certificate ends in {days} days: `meshd certs rotate`"


def _counts(reasons: Json) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in reasons.items())


def _looked_at(kind: str) -> str:
    return {"nodes": "`meshd node list`", "ip": "`meshd explain ip`", "services": "`meshd explain service`"}.get(
        kind, ""
    )
