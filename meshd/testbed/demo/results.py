"""What a load program saw: its lines, and questions to them. Pure."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec


class Request(msgspec.Struct, frozen=True):
    """One request or, with a number in `hold`, one long connection. Times in seconds, `at` on the monotonic clock."""

    at: float
    seconds: float
    pod: str | None
    error: str | None
    peer: str | None = None
    hold: int | None = None
    echoes: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """All that one run of the load program saw."""

    requests: tuple[Request, ...]
    held: tuple[Request, ...]

    @property
    def by_pod(self) -> Counter[str]:
        """Answers by `cluster/pod`."""
        return Counter(request.pod for request in self.requests if request.pod is not None)

    @property
    def by_cluster(self) -> Counter[str]:
        return Counter(request.pod.partition("/")[0] for request in self.requests if request.pod is not None)

    @property
    def peers(self) -> Counter[str]:
        """What the servers saw as the client's address."""
        return Counter(request.peer for request in self.requests if request.peer is not None)

    @property
    def failures(self) -> list[Request]:
        return [request for request in self.requests if request.error is not None]

    @property
    def slowest_s(self) -> float:
        return max((request.seconds for request in self.requests), default=0.0)

    def begun_after(self, at: float) -> "Load":
        """The requests that began after a moment of the monotonic clock."""
        return Load(tuple(request for request in self.requests if request.at > at), self.held)


def parse(lines: Iterable[bytes]) -> Load:
    """The load program's output. Raises msgspec.DecodeError for anything else."""
    found = [msgspec.json.decode(line, type=Request) for line in lines]
    return Load(
        requests=tuple(line for line in found if line.hold is None),
        held=tuple(line for line in found if line.hold is not None),
    )


def shares(counts: Counter[str]) -> str:
    """`a 26 %, b 74 %`, in the order of names."""
    total = counts.total() or 1
    return ", ".join(f"{name} {100 * count / total:.0f} %" for name, count in sorted(counts.items())) or "nobody"
