"""Where the tc programs stand: on which side of an interface, and in which order there."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType

PRIORITY = 109


class AttachError(Exception):
    """A program could not be attached; the text names the interface, the reason and the remedy."""


class Side(IntEnum):
    """A side of an interface; the numbers are enum bpf_attach_type."""

    INGRESS = 46
    EGRESS = 47


@dataclass(frozen=True, slots=True)
class Place:
    """`priority` is that of a clsact filter; `before` names the program of ours that this one runs before, if any."""

    side: Side
    priority: int = PRIORITY
    before: str = ""


PLACES: Mapping[str, Place] = MappingProxyType(
    {
        "from_pod": Place(Side.INGRESS),
        "to_pod": Place(Side.EGRESS),
        "from_tunnel": Place(Side.INGRESS),
        "to_tunnel": Place(Side.EGRESS),
        "from_network": Place(Side.INGRESS),
        "policy_out": Place(Side.INGRESS, PRIORITY - 1, "from_pod"),
        "policy_in": Place(Side.EGRESS, PRIORITY - 1, "to_pod"),
    }
)
