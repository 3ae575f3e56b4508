"""The annotations that make a Service global, in both spellings (ClusterMesh, wire contract § 4.2).

The current name wins over the old one. What cannot be understood is a problem that is shown, and the safe default
holds: never a black hole.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from globalsvc.preferences import MIN_HEALTHY, NAMES, NO_PREFERENCES, Preferences, parse_preferences

GLOBAL = ("service.cilium.io/global", "io.cilium/global-service")
SHARED = ("service.cilium.io/shared", "io.cilium/shared-service")
AFFINITY = ("service.cilium.io/affinity", "io.cilium/service-affinity")
NAMESPACE_GLOBAL = "clustermesh.cilium.io/global"

OURS = "meshd.io/"

#: Every annotation of a Service that meshd reads.
READ = frozenset(GLOBAL + SHARED + AFFINITY + NAMES)
ALIKE = 256
"""Most services have the annotations of many others."""
_BOOLEAN = ("true", "false", "")


class Affinity(StrEnum):
    """Which clusters' backends a cluster prefers for its own clients."""

    NONE = "none"
    LOCAL = "local"
    REMOTE = "remote"


@dataclass(frozen=True, slots=True)
class Annotations:
    """What a Service asks for. `problems` are sentences for people; the defaults hold where there is one.

    `is_doubtful`: whether it shall be global cannot be understood; it is not.
    """

    is_global: bool = False
    is_doubtful: bool = False
    shared: bool = False
    affinity: Affinity = Affinity.NONE
    preferences: Preferences = NO_PREFERENCES
    problems: tuple[str, ...] = ()


def parse_annotations(annotations: Mapping[str, str]) -> Annotations:
    """Reads a Service's annotations."""
    return _parse(tuple(annotations.items()))


@lru_cache(ALIKE)
def _parse(items: tuple[tuple[str, str], ...]) -> Annotations:
    annotations = dict(items)
    problems: list[str] = []
    for names in (GLOBAL, SHARED, AFFINITY):
        problems += _contradiction(annotations, *names)
    name, text = _current(annotations, GLOBAL)
    is_global, is_doubtful = _is_true(text), text.lower() not in _BOOLEAN
    if is_doubtful:
        problems.append(f"{name}: {text!r} is neither true nor false: the service is not global")
    name, text = _current(annotations, SHARED, default="true")
    shared = is_global and _is_true(text)
    if text.lower() not in _BOOLEAN:
        problems.append(f"{name}: {text!r} is neither true nor false: the service is not shared")
    wanted = _current(annotations, AFFINITY)[1].lower()
    if wanted in ("", *Affinity):
        affinity = Affinity(wanted or Affinity.NONE)
    else:
        affinity = Affinity.NONE
        problems.append(f"affinity {wanted!r} is unknown (none, local or remote): none is used")
    preferences, odd = parse_preferences(annotations)
    if preferences.min_healthy and affinity is not Affinity.LOCAL:
        problems.append(f"{MIN_HEALTHY} has a meaning only with affinity local: it is ignored")
    unknown = sorted(name for name in annotations if name.startswith(OURS) and name not in READ)
    return Annotations(
        is_global=is_global,
        is_doubtful=is_doubtful,
        shared=shared,
        affinity=affinity,
        preferences=preferences,
        problems=(*problems, *odd, *(f"{name} is no annotation that meshd knows: it is ignored" for name in unknown)),
    )


def namespace_is_global(annotations: Mapping[str, str], *, default: bool = True) -> bool:
    """Whether a Namespace lets its services, identities and ips be seen by other clusters."""
    value = annotations.get(NAMESPACE_GLOBAL)
    return default if value is None else _is_true(value)


def namespace_problems(annotations: Mapping[str, str]) -> tuple[str, ...]:
    """What of a Namespace's annotation cannot be understood."""
    value = annotations.get(NAMESPACE_GLOBAL, "")
    if value.lower() in _BOOLEAN:
        return ()
    return (f"{NAMESPACE_GLOBAL}: {value!r} is neither true nor false: nothing of the namespace is shown",)


def is_read(name: str) -> bool:
    """Whether a Service's annotation of this name concerns meshd, be it misspelt."""
    return name in READ or name.startswith(OURS)


def _current(annotations: Mapping[str, str], names: tuple[str, str], default: str = "") -> tuple[str, str]:
    """The name that counts and its value."""
    return next(((name, annotations[name]) for name in names if name in annotations), (names[0], default))


def _contradiction(annotations: Mapping[str, str], name: str, old: str) -> list[str]:
    """Both spellings, with values that do not mean the same."""
    if name not in annotations or old not in annotations or annotations[name].lower() == annotations[old].lower():
        return []
    return [f"{name}: {annotations[name]!r} and {old}: {annotations[old]!r} contradict each other: the first counts"]


def _is_true(value: str) -> bool:
    return value.lower() == "true"
