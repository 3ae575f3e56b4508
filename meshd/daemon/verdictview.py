"""What the socket says of verdicts and drops: those that the kernel told, with who and by which rule, and how many."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from datapath.layout import NOT_DROPS, DropReason
from datapath.ringbuf import PacketEvent
from meshd.daemon.parties import Parties
from meshd.daemon.podnamespaces import PodNamespaces
from meshd.daemon.policyview import SHUT
from meshd.daemon.verdicts import Told, is_drop
from policy.model import Direction
from policy.ports import PROTOCOL_NAMES

if TYPE_CHECKING:
    from meshd.daemon.program import Daemon

Json = dict[str, Any]
_BY_RULES = {DropReason.NONE, DropReason.POLICY_DENIED, DropReason.POLICY_CLOSED, DropReason.POLICY_AUDITED}


class VerdictView:
    """Reads a daemon; changes nothing. What an answer costs is bounded (`verdicts.MOST`)."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._parties = Parties(daemon)
        self._namespaces = PodNamespaces()

    def routes(self) -> Mapping[str, Callable[..., object]]:
        return {"/v1/verdicts/{after}": self.told, "/v1/drops": self.drops}

    def drops(self) -> Json:
        """How many packets were dropped since the maps were made, by reason; and what else is counted there."""
        counts = self._daemon.drops()
        return {
            reason.label: {"packets": counts[reason], "dropped": reason not in NOT_DROPS}
            for reason in DropReason
            if reason is not DropReason.NONE and reason in counts
        }

    async def told(self, after: str) -> Json:
        """As `verdicts`, when it is known who was refused at a socket."""
        found, _, _ = self._daemon.verdicts.since(int(after))
        await self._namespaces.learn({netns for told in found if (netns := told.event.netns)})
        return self.verdicts(after)

    def verdicts(self, after: str) -> Json:
        """Events with a greater number than `after`, alike ones as one; ask again with `next` until it is `told`."""
        found, number, lost = self._daemon.verdicts.since(int(after))
        return {
            "told": self._daemon.verdicts.told,
            "next": number,
            "lost": lost,
            "suppressed": self._daemon.drops().get(DropReason.EVENT_SUPPRESSED, 0),
            "events": [self._event(told) for told in found],
        }

    def _event(self, told: Told) -> Json:
        event = told.event
        return {
            "number": told.number,
            "count": told.count,
            "time_s": event.time_ns / 1e9,
            "verdict": "drop" if is_drop(event) else "audit" if event.reason else "allow",
            "reason": event.reason.label,
            "direction": Direction(event.direction).label,
            "source": {**self._source(event), "port": event.source_port},
            "destination": {**self._parties.who(event.destination), "port": event.port},
            "protocol": PROTOCOL_NAMES.get(event.protocol, str(event.protocol)),
            "by": self._rules(event),
            "length": event.length,
        }

    def _source(self, event: PacketEvent) -> Json:
        if not event.netns:
            return self._parties.who(event.source)
        here = [
            each for each in self._namespaces.addresses(event.netns) if not (each.is_loopback or each.is_link_local)
        ]
        pods = [each for each in here if str(each) in self._daemon.mesh.addresses.local_pods]
        if not (found := pods or here):
            return self._parties.nobody(event.netns)
        return self._parties.who(min(found, key=lambda each: (each.version != event.destination.version, str(each))))

    def _rules(self, event: PacketEvent) -> list[str]:
        if event.reason is DropReason.NO_BACKEND:
            owner = self._daemon.mesh.services.owner((event.destination, event.port, event.protocol))
            return [f"service {owner} has no backend"] if owner else []
        if event.reason is DropReason.POLICY_SHUT:
            return [SHUT]
        if event.reason not in _BY_RULES or not event.subject:
            return []
        engine, direction = self._daemon.policing.engine, Direction(event.direction)
        return list(engine.explain(event.subject, direction, event.peer, event.protocol, event.port).by)
