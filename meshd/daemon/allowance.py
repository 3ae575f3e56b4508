"""What a cluster may say, and for how long it is believed without a word: the key `meshd:` of its clustermesh file."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from types import MappingProxyType

from wire.keys import SHARED_KINDS, Kind
from wire.records import IPNetwork

STALE_AFTER_S = 60.0
MAX_STALE_S = 24 * 3600.0
KEYS = frozenset({"server-name", "allowed-cidrs", "allowed-namespaces", "quotas", "stale-after", "max-stale"})
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")


@dataclass(frozen=True, slots=True)
class Quota:
    """At most so many records of a kind, of so many bytes together."""

    records: int
    bytes: int


DEFAULT_QUOTAS: Mapping[Kind, Quota] = MappingProxyType(
    {
        Kind.NODE: Quota(5_000, 16 << 20),
        Kind.SERVICE: Quota(20_000, 64 << 20),
        Kind.IDENTITY: Quota(65_536, 64 << 20),
        Kind.IP: Quota(250_000, 128 << 20),
    }
)


@dataclass(frozen=True, slots=True)
class Allowance:
    """`cidrs` and `namespaces`: None allows all. `quotas`: a kind that is not there has no limit."""

    cidrs: tuple[IPNetwork, ...] | None = None
    namespaces: frozenset[str] | None = None
    quotas: Mapping[Kind, Quota] = field(default_factory=lambda: DEFAULT_QUOTAS)
    stale_after_s: float = STALE_AFTER_S
    max_stale_s: float = MAX_STALE_S


DEFAULT_ALLOWANCE = Allowance()
OWN_CLUSTER = Allowance(quotas=MappingProxyType({}))
"""Our own cluster has no quotas."""


def parse_allowance(document: Mapping[str, object]) -> Allowance:
    """Raises ValueError, which names the key and what would be right."""
    stale_after_s = _duration(document, "stale-after", STALE_AFTER_S)
    max_stale_s = _duration(document, "max-stale", max(MAX_STALE_S, stale_after_s))
    if max_stale_s < stale_after_s:
        raise ValueError("`meshd.max-stale` must not be less than `meshd.stale-after`")
    cidrs = _texts(document, "allowed-cidrs")
    namespaces = _texts(document, "allowed-namespaces")
    return Allowance(
        cidrs=None if cidrs is None else tuple(_network(text) for text in cidrs),
        namespaces=None if namespaces is None else frozenset(namespaces),
        quotas=_quotas(document.get("quotas")),
        stale_after_s=stale_after_s,
        max_stale_s=max_stale_s,
    )


def _texts(document: Mapping[str, object], key: str) -> list[str] | None:
    value = document.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"`meshd.{key}` must be a list of texts")
    return value


def _network(text: str) -> IPNetwork:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(f"`meshd.allowed-cidrs`: {error}") from error


def _duration(document: Mapping[str, object], key: str, default: float) -> float:
    value = document.get(key)
    if value is None:
        return default
    found = _DURATION.fullmatch(str(value))
    if isinstance(value, bool) or found is None:
        raise ValueError(f"`meshd.{key}` must be a duration such as 90s, 5m or 24h, is {value!r}")
    return float(found[1]) * _UNITS[found[2]]


def _quotas(document: object) -> Mapping[Kind, Quota]:
    if document is None:
        return DEFAULT_QUOTAS
    if not isinstance(document, dict):
        raise ValueError("`meshd.quotas` must be a mapping such as {ip: {records: 1000, bytes: 1000000}}")
    quotas = dict(DEFAULT_QUOTAS)
    for name, limits in document.items():
        kind = next((kind for kind in SHARED_KINDS if kind == name), None)
        if kind is None:
            raise ValueError(f"`meshd.quotas.{name}`: there is no such kind; there are {', '.join(SHARED_KINDS)}")
        if not isinstance(limits, dict) or not limits.keys() <= {"records", "bytes"}:
            raise ValueError(f"`meshd.quotas.{name}` must be a mapping with `records` and `bytes`")
        default = DEFAULT_QUOTAS[kind]
        quotas[kind] = Quota(
            _count(name, "records", limits.get("records", default.records)),
            _count(name, "bytes", limits.get("bytes", default.bytes)),
        )
    return MappingProxyType(quotas)


def _count(name: str, key: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"`meshd.quotas.{name}.{key}` must be a number of at least 0, is {value!r}")
    return value
