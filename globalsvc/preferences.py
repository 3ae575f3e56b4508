"""What a Service may ask of meshd beyond ClusterMesh, with annotations under `meshd.io/`. Each is off by default; a
value that cannot be understood is a sentence for people, and the annotation counts as absent.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

MIN_HEALTHY = "meshd.io/min-healthy"
PRIORITY = "meshd.io/cluster-priority"
WEIGHTS = "meshd.io/cluster-weights"
DRAIN = "meshd.io/drain-clusters"
ZONE_HINTS = "meshd.io/zone-hints"
BALANCING = "meshd.io/load-balancing"
NAMES = (MIN_HEALTHY, PRIORITY, WEIGHTS, DRAIN, ZONE_HINTS, BALANCING)

WEIGHT_MAX = 1000
DEFAULT_WEIGHT = 1
_AMOUNT = re.compile(r"([0-9]{1,6})(%?)")
_CLUSTER = re.compile(r"[a-z0-9-]{1,32}")
_HYSTERESIS_PERCENT = 20
T = TypeVar("T")


class Balancing(StrEnum):
    """How one of several backends is chosen."""

    RANDOM = "random"
    MAGLEV = "maglev"


@dataclass(frozen=True, slots=True)
class Amount:
    """A number of backends, or a percentage of those that are expected."""

    value: int
    is_percent: bool

    def of(self, expected: int) -> int:
        return -(-self.value * expected // 100) if self.is_percent else self.value


@dataclass(frozen=True, slots=True)
class MinHealthy:
    """Below `low` active local backends other clusters' are used too, until there are `high`, or as many as expected.

    Without `high` there must be one more than `low`, or 20 % of the expected ones.
    """

    low: Amount
    high: Amount | None = None

    def is_enough(self, active: int, expected: int, *, spilling: bool) -> bool:
        """`spilling`: other clusters' backends are in use already."""
        low = self.low.of(expected)
        if not spilling:
            return active >= low
        if self.high is not None:
            high = self.high.of(expected)
        elif self.low.is_percent:
            high = Amount(self.low.value + _HYSTERESIS_PERCENT, True).of(expected)
        else:
            high = low + 1
        return active >= max(low, min(high, expected))


@dataclass(frozen=True, slots=True)
class Preferences:
    """`priority`: clusters, the preferred ones first. `weights`: shares of the traffic by cluster; empty: every backend
    counts the same. `drained`: clusters that get no new connections. `balancing` None: the daemon's default.
    """

    min_healthy: MinHealthy | None = None
    priority: tuple[str, ...] = ()
    weights: Mapping[str, int] = field(default_factory=dict)
    drained: frozenset[str] = frozenset()
    zone_hints: bool = False
    balancing: Balancing | None = None

    @property
    def clusters(self) -> frozenset[str]:
        """Those that are named."""
        return self.drained.union(self.priority, self.weights)


NO_PREFERENCES = Preferences()


def parse_preferences(annotations: Mapping[str, str]) -> tuple[Preferences, tuple[str, ...]]:
    """The preferences, and a sentence for each annotation that cannot be understood."""
    problems: list[str] = []

    def read(name: str, parse: Callable[[str], T], default: T) -> T:
        if name not in annotations:
            return default
        try:
            return parse(annotations[name].strip())
        except ValueError as error:
            problems.append(f"{name}: {annotations[name]!r} {error}: it is ignored")
            return default

    preferences = Preferences(
        min_healthy=read(MIN_HEALTHY, _min_healthy, None),
        priority=read(PRIORITY, _clusters, NO_PREFERENCES.priority),
        weights=read(WEIGHTS, _weights, {}),
        drained=read(DRAIN, _drained, frozenset()),
        zone_hints=read(ZONE_HINTS, _boolean, False),
        balancing=read(BALANCING, _balancing, None),
    )
    return preferences, tuple(problems)


def _amount(text: str) -> Amount:
    match = _AMOUNT.fullmatch(text)
    if not match or (match[2] and int(match[1]) > 100):
        raise ValueError("is not a number of backends or a percentage, or two of them joined by '-'")
    return Amount(int(match[1]), bool(match[2]))


def _min_healthy(text: str) -> MinHealthy | None:
    first, dash, second = text.partition("-")
    low, high = _amount(first.strip()), _amount(second.strip()) if dash else None
    if high and high.is_percent is low.is_percent and high.value < low.value:
        raise ValueError("has a second mark below the first")
    return MinHealthy(low, high)


def _drained(text: str) -> frozenset[str]:
    return frozenset(_clusters(text))


def _clusters(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not all(map(_CLUSTER.fullmatch, names)):
        raise ValueError("is not a list of cluster names joined by ','")
    return tuple(dict.fromkeys(names))


def _weights(text: str) -> dict[str, int]:
    weights = {}
    for part in filter(str.strip, text.split(",")):
        name, _, number = (each.strip() for each in part.partition("="))
        if not _CLUSTER.fullmatch(name) or not number.isdecimal() or int(number) > WEIGHT_MAX:
            raise ValueError(f"is not a list of cluster=weight joined by ',', with weights from 0 to {WEIGHT_MAX}")
        weights[name] = int(number)
    return weights


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", ""):
        raise ValueError("is neither true nor false")
    return text.lower() == "true"


def _balancing(text: str) -> Balancing | None:
    try:
        return Balancing(text.lower())
    except ValueError:
        raise ValueError(f"is unknown ({' or '.join(Balancing)})") from None
