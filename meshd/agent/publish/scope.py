"""Whose records these are, and the few choices that shape them."""

from dataclasses import dataclass, field

from identity.labels import LabelFilter


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The cluster that publishes.

    `tunnel`: how its nodes are reached (`vxlan:<port>`), "" says nothing about it. `namespaces_are_global`: what holds
    for a namespace without the annotation.
    """

    cluster: str
    cluster_id: int
    tunnel: str = "vxlan:8473"
    namespaces_are_global: bool = True
    keep_label: LabelFilter = field(default_factory=LabelFilter)
