"""What the agent asks of a source of objects."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol

from meshd.agent.state import Changes


class Source(Protocol):
    """One of them per agent; the others need not know which."""

    @property
    def name(self) -> str:
        """Where the objects come from, for people."""

    @property
    def problems(self) -> Sequence[object]:
        """What is wrong there now; str() of each says what, where, and what to do."""

    @property
    def seconds(self) -> Mapping[str, float]:
        """What it has spent on which part of its work."""

    def changes(self) -> AsyncGenerator[Changes]:
        """First everything, then what changes; never ends by itself."""
