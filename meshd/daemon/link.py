"""The state of the control link to one cluster, with its age: what status shows of a connection."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from meshd.daemon.servercert import ServerCertificate


class LinkState(StrEnum):
    """Worse first."""

    REJECTED = "rejected"  # a certificate or a configuration that will not do: somebody must act
    DISCONNECTED = "disconnected"  # nobody answers; retried
    CONNECTING = "connecting"
    WAITING = "waiting"  # connected, but the cluster has not said everything yet
    READY = "ready"


class PeerUnavailable(Exception):
    """Nobody answers, or not any more: worth another try soon. str(error) is the reason."""


class PeerRejected(Exception):
    """They refuse us, or we them: another try is not likely to help. str(error) is the reason.

    `certain` is False if it may have been bad luck: then the next try comes as soon as for one that is unavailable.
    """

    def __init__(self, reason: str, *, certain: bool = True) -> None:
        super().__init__(reason)
        self.certain = certain


@dataclass(slots=True)
class Link:
    """Where a control link stands. Times are monotonic seconds."""

    state: LinkState = LinkState.CONNECTING
    reason: str = ""
    since: float = 0.0
    target: str = ""
    failures: int = 0
    connected_at: float | None = None
    sync_s: float | None = None
    """How long the lists took, from the connection on, the last time they were complete."""
    heartbeat_at: float | None = None
    not_after: datetime | None = None
    """When our client certificate ends."""
    warnings: tuple[str, ...] = ()
    server: ServerCertificate | None = None
    """The certificate that the cluster showed us; None if it was not looked at yet."""

    def become(self, state: LinkState, *, now: float, reason: str = "") -> bool:
        """True if this is another state or reason than before."""
        if (state, reason) == (self.state, self.reason):
            return False
        if state is not self.state:
            self.since = now
        self.state, self.reason = state, reason
        return True

    def days_left(self) -> int | None:
        """Whole days until our certificate ends, negative afterwards; None if it was not read yet."""
        return None if self.not_after is None else (self.not_after - datetime.now(UTC)).days
