"""What a proxy says of itself, for `/v1/status`: upstream, what it holds, who reads, what was refused."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from certs.checks import Purpose
from certs.reload import LivePair
from etcdproxy.hub import Hub
from etcdproxy.peers import Peer
from etcdproxy.service import Service
from etcdproxy.upstream import State, Upstream
from etcdproxy.users import LiveUsers


@dataclass(frozen=True, slots=True)
class Parts:
    """A running proxy, as whoever reports on it sees it."""

    hub: Hub
    upstream: Upstream
    service: Service
    live: LivePair
    users: LiveUsers | None


def readiness(parts: Parts) -> tuple[bool, str]:
    """Whether readers can be served, and a sentence. etcd away is no reason not to: what is known is served."""
    status = parts.upstream.status
    if not parts.hub.ready.is_set():
        return False, f"not ready: etcd has not been read yet{f' ({status.problem})' if status.problem else ''}"
    if status.state is State.AWAY:
        return True, f"ready, etcd away for {time.monotonic() - status.since:.0f} s ({status.problem})"
    return True, "ready"


def report(facts: Mapping[str, Any], parts: Parts) -> dict[str, Any]:
    """`facts` are put first as they are. Ages (`…_s`) are in seconds."""
    parts.live.refresh()
    now = time.monotonic()
    hub, history, peers = parts.hub, parts.hub.history, parts.service.peers
    return {
        **facts,
        "upstream": report_upstream(parts.upstream, now),
        "tls": {"problem": tls_problem(parts.live), "days_left": parts.live.pair.days_left(datetime.now(UTC))},
        "users": {"problem": parts.users.problem if parts.users else ""},
        "cluster_id": f"{hub.store.cluster_id:x}",
        "revision": history.revision,
        "keys": len(history),
        "history": {"base": history.base, "events": history.kept_events, "bytes": history.kept_bytes},
        "connections": peers.connections,
        "streams": peers.streams,
        "queued_bytes": peers.queued,
        "watchers": hub.watchers,
        "peers": [report_peer(peer, now) for peer in peers.all()],
        "refused": dict(peers.refused),
        "handshakes_failed": dict(peers.handshakes_failed),
        "refusals": [refusal._asdict() for refusal in peers.refusals],
    }


def tls_problem(live: LivePair) -> str:
    """What is wrong with the server's certificate, but for its end; empty if nothing is."""
    return live.problem or live.pair.misuse(Purpose.SERVER)


def report_upstream(upstream: Upstream, now: float) -> dict[str, Any]:
    status = upstream.status
    return {
        "etcd": upstream.target,
        "state": status.state,
        "age_s": round(now - status.since, 3),
        "problem": status.problem,
        "lists": status.lists,
        "resumes": status.resumes,
    }


def report_peer(peer: Peer, now: float) -> dict[str, Any]:
    return {
        "name": peer.name,
        "role": peer.role,
        "connections": peer.connections,
        "streams": peer.streams,
        "watches": peer.watches,
        "ranges": peer.ranges,
        "refused": peer.refused,
        "seen_s": round(now - peer.seen, 3),
    }
