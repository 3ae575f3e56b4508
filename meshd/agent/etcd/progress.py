"""What shall be written and what has been: shared by sources, writer and those who report."""

import asyncio
from dataclasses import dataclass, field

from identity.allocation import Allocator
from meshd.agent.etcd.ledger import Ledger
from meshd.agent.publish.publisher import Publisher
from meshd.agent.state import Dirty


@dataclass(slots=True)
class Desired:
    """What the writer writes, shared with the sources: `changed` is set when `publisher` has something new.

    `whole`: the sources could read everything. Until then what an earlier run has published, and of which nothing was
    heard, stays.
    """

    publisher: Publisher
    identities: Allocator
    ledger: Ledger
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    changed_at: float = 0.0
    synced: bool = False
    whole: bool = True

    def mark(self, dirty: Dirty, *, synced: bool, now: float) -> None:
        """A source has told of something. `synced`: of everything, by now."""
        self.publisher.mark(dirty)
        self.synced |= synced
        self.stir(now=now)

    def stir(self, *, now: float) -> None:
        """There is something to write."""
        if not self.changed.is_set():
            self.changed_at = now
            self.changed.set()


@dataclass(slots=True)
class Progress:
    """What the writer has done since the process began. `announced`: all stands in etcd, and the canaries say so.

    `foreign`: changes of our keys by others. `rival`: why another cluster has no business in this etcd, "" for none.
    """

    transactions: int = 0
    lag_s: float = 0.0
    keys: int = 0
    announced: asyncio.Event = field(default_factory=asyncio.Event)
    generation: str = ""
    refused: dict[str, str] = field(default_factory=dict)
    foreign: int = 0
    computing_s: float = 0.0
    writing_s: float = 0.0
    rival: str = ""
