"""The annotations that make a Service global, in both spellings (ClusterMesh, wire contract § 4.2).

The current name wins over the old one. What cannot be understood is a problem that is shown, and the safe default
holds: never a black hole.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from globalsvc.preferences import MIN_HEALTHY, NAMES, NO_PREFERENCES, Preferences, parse_preferences

GLOBAL = ("service.cilium.io/global", "io.cilium/global-service")
SHARED = ("service.cilium.io/shared", "io.cilium/shared-service")
AFFINITY = ("service.cilium.io/affinity", "io.cilium/service-affinity")
NAMESPACE_GLOBAL = "clustermesh.cilium.io/global"

#: Every annotation of a Service that meshd reads.
READ = frozenset(GLOBAL + SHARED + AFFINITY + NAMES)


class Affinity(StrEnum):
    """Which clusters' backends a cluster prefers for its own clients."""

    NONE = "none"
    LOCAL = "local"
    REMOTE = "remote"


@dataclass(frozen=True, slots=True)
class Annotations:
    """What a Service asks for. `problems` are sentences for people; the defaults hold where there is one."""

    is_global: bool = False
    shared: bool = False
    affinity: Affinity = Affinity.NONE
    preferences: Preferences = NO_PREFERENCES
    problems: tuple[str, ...] = ()


def parse_annotations(annotations: Mapping[str, str]) -> Annotations:
    """Reads a Service's annotations."""
    is_global = _is_true(_current(annotations, GLOBAL) or "")
    shared = _current(annotations, SHARED)
    wanted = (_current(annotations, AFFINITY) or "").lower()
    problems = []
    if wanted in ("", *Affinity):
        affinity = Affinity(wanted or Affinity.NONE)
    else:
        affinity = Affinity.NONE
        problems.append(f"affinity {wanted!r} is unknown (none, local or remote): none is used")
    preferences, odd = parse_preferences(annotations)
    if preferences.min_healthy and affinity is not Affinity.LOCAL:
        problems.append(f"{MIN_HEALTHY} has a meaning only with affinity local: it is ignored")
    return Annotations(
        is_global=is_global,
        shared=is_global and (shared is None or _is_true(shared)),
        affinity=affinity,
        preferences=preferences,
        problems=(*problems, *odd),
    )


def namespace_is_global(annotations: Mapping[str, str], *, default: bool = True) -> bool:
    """Whether a Namespace lets its services, identities and ips be seen by other clusters."""
    value = annotations.get(NAMESPACE_GLOBAL)
    return default if value is None else _is_true(value)


def _current(annotations: Mapping[str, str], names: tuple[str, str]) -> str | None:
    return next((annotations[name] for name in names if name in annotations), None)


def _is_true(value: str) -> bool:
    return value.lower() == "true"
