"""What the socket says of ways to other nodes: the plan with its reasons, and who lost which conflict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from routing.plan import Route, RouteKind

if TYPE_CHECKING:
    from meshd.daemon.program import Daemon

SHOWN = 10
Json = dict[str, Any]


class RoutingReport:
    """Reads a daemon; changes nothing."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def plan(self) -> Json:
        """Everything."""
        daemon, nodes = self._daemon, self._daemon.mesh.nodes
        return {
            "instance": daemon.config.name,
            "mode": nodes.settings.mode,
            "peers": dict(nodes.settings.peers),
            "routes": [self._route(route) for _, routes in sorted(nodes.routes.items()) for route in routes],
            "learned": {str(prefix): _via(hop) for prefix, hop in nodes.surroundings.learned.items()},
            "conflicts": list(self._conflicts()),
            "problems": dict(daemon.ways.problems),
        }

    def summary(self) -> Json:
        """Of a bounded size."""
        nodes = self._daemon.mesh.nodes
        kinds = Counter(route.kind for routes in nodes.routes.values() for route in routes)
        return {
            "mode": nodes.settings.mode,
            "peers": dict(nodes.settings.peers),
            "routes": {str(kind): count for kind, count in sorted(kinds.items())},
            "unreachable": [self._route(route) for route in islice(self._unreachable(), SHOWN)],
            "learned": len(nodes.surroundings.learned),
            "conflicts": list(islice(self._conflicts(), SHOWN)),
            "problems": dict(self._daemon.ways.problems),
        }

    def findings(self) -> Iterator[str]:
        yield from (f"{what}: {reason}" for what, reason in self._daemon.ways.problems.items())
        yield from (conflict["text"] for conflict in islice(self._conflicts(), SHOWN))
        yield from self._announced_otherwise()
        if self._daemon.config.unreachable == "error":
            for route in islice(self._unreachable(), SHOWN):
                yield f"{route.prefix} of {route.cluster}/{route.node} cannot be reached: {route.reason}"

    def _announced_otherwise(self) -> Iterator[str]:
        own, announced = self._daemon.config.tunnel, self._daemon.mesh.nodes.own_tunnel
        if announced and announced != own:
            yield (
                f"this node announces {announced}, but listens on {own}: others send to the wrong port; "
                "give the agent's tunnel and this daemon's --tunnel the same value"
            )

    def _unreachable(self) -> Iterator[Route]:
        for routes in self._daemon.mesh.nodes.routes.values():
            yield from (route for route in routes if route.kind is RouteKind.UNREACHABLE)

    def _route(self, route: Route) -> Json:
        believed = self._daemon.mesh.prefixes.believed(route.prefix)
        claimant = f"{route.cluster}/{route.node}"
        device = route.hop.device if route.hop else route.end.device if route.end else None
        return {
            "prefix": str(route.prefix),
            "cluster": route.cluster,
            "node": route.node,
            "kind": route.kind,
            "device": device,
            "via": str(route.next_hop or route.endpoint) if device else None,
            "reason": route.reason if believed == claimant else f"not used: lost to {believed or 'an overlapping one'}",
            "used": believed == claimant,
        }

    def _conflicts(self) -> Iterator[Json]:
        mesh = self._daemon.mesh
        for prefix, (winner, *losers) in mesh.prefixes.contested():
            text = f"{prefix} of {', '.join(losers)}: is {winner}'s, which is believed"
            yield {"kind": "prefix", "what": str(prefix), "winner": winner, "text": text}
        for prefix, (cluster, believed) in mesh.prefixes.blocked.items():
            text = f"{prefix} of {cluster}: overlaps a prefix of {believed}, which is believed"
            yield {"kind": "prefix", "what": str(prefix), "winner": believed, "text": text}
        for address, (winner, *losers) in mesh.nodes.conflicts():
            text = f"node address {address} of {', '.join(losers)}: is {winner}'s, which is believed"
            yield {"kind": "node-address", "what": str(address), "winner": winner, "text": text}


def _via(hop: Any) -> str:
    return f"{hop.gateway or 'on-link'} dev {hop.device}"
