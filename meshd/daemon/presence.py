"""Whether a cluster is there: by its control link and heartbeat, and when these are lost by probes of its nodes. Pure.

    FRESH ── control lost ──▶ STALE ── stale_after passed and no probe answered, or max_stale passed ──▶ WITHDRAWN
      ▲                        │                                                                        │
      └────────────────────────┴───────────────────── control there again ──────────────────────────────┘

From WITHDRAWN only the control link leads back: answers that come and go do not make backends come and go.
"""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from meshd.daemon.allowance import Allowance

HEARTBEAT_MAX_S = 120.0
MAX_STALE, SILENT = "max-stale", "nodes-silent"


class PresenceState(StrEnum):
    FRESH = "fresh"
    STALE = "stale"
    WITHDRAWN = "withdrawn"


@dataclass(slots=True)
class Presence:
    """Times are monotonic seconds. `lost_at`: since when nothing of what it says can be trusted to be of now."""

    lost_at: float | None
    state: PresenceState = PresenceState.STALE
    since: float = 0.0
    reason: str = ""
    withdrawals: Counter[str] = field(default_factory=Counter)
    """How often it came to that, by cause."""

    def lose(self, now: float) -> None:
        if self.lost_at is None:
            self.lost_at = now

    def find(self) -> None:
        self.lost_at = None

    def age_s(self, now: float) -> float | None:
        """How long it is lost, None if it is not."""
        return None if self.lost_at is None else max(0.0, now - self.lost_at)

    def judge(self, now: float, allowance: Allowance, *, answers: bool | None) -> bool:
        """`answers`: do its nodes answer probes; None if that is not known. True if the state is another one now."""
        state, reason = self._judge(now, allowance, answers)
        changed = state is not self.state
        if changed:
            self.since = now
            if state is PresenceState.WITHDRAWN:
                overdue = (self.age_s(now) or 0.0) >= allowance.max_stale_s
                self.withdrawals[MAX_STALE if overdue else SILENT] += 1
        self.state, self.reason = state, reason
        return changed

    def _judge(self, now: float, allowance: Allowance, answers: bool | None) -> tuple[PresenceState, str]:
        age = self.age_s(now)
        if age is None:
            return PresenceState.FRESH, ""
        if self.state is PresenceState.WITHDRAWN:
            return self.state, self.reason
        if age >= allowance.max_stale_s:
            return PresenceState.WITHDRAWN, f"nothing heard for max-stale ({allowance.max_stale_s:.0f} s)"
        if age >= allowance.stale_after_s and answers is False:
            return PresenceState.WITHDRAWN, f"nothing heard for {age:.0f} s, and none of its nodes answers"
        known = {True: "its nodes answer", False: "its nodes do not answer", None: "not known whether its nodes answer"}
        return PresenceState.STALE, known[answers]
