"""What a policy says, whichever specification it was written in: the result of parsing."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import NamedTuple

from policy.ports import PortRange
from policy.selector import IPNetwork, Selector


class Direction(IntEnum):
    """The numbers stand in map keys."""

    INGRESS = 0
    EGRESS = 1

    @property
    def label(self) -> str:
        return self.name.lower()


class Mode(StrEnum):
    """What comes of a verdict: nothing is looked at, it is only told, or it is carried out."""

    OFF = "off"
    AUDIT = "audit"
    ENFORCE = "enforce"


class PolicyKind(StrEnum):
    """The kinds, by the name that Kubernetes gives them."""

    KUBERNETES = "NetworkPolicy"
    CILIUM = "CiliumNetworkPolicy"
    CILIUM_CLUSTERWIDE = "CiliumClusterwideNetworkPolicy"


class PolicyRef(NamedTuple):
    """Which policy; `namespace` is "" for one of the whole cluster."""

    kind: PolicyKind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Rule:
    """`peers` None: everybody, also outside the mesh; () nobody. `ports` None: all of every protocol.

    `place` says where it stands in the policy: `spec.ingress[0]`.
    """

    direction: Direction
    deny: bool
    peers: tuple[Selector, ...] | None
    ports: tuple[PortRange, ...] | None
    place: str


@dataclass(frozen=True, slots=True)
class Section:
    """One set of selected pods and its rules. `closes`: in these directions only what is allowed passes."""

    subject: Selector
    closes: frozenset[Direction]
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """A parsed policy. `networks` are all prefixes that it names.

    An invalid policy has a `problem` that names the field; its sections close what it selects in the directions that
    it names, and allow nothing.
    """

    ref: PolicyRef
    sections: tuple[Section, ...]
    networks: frozenset[IPNetwork] = frozenset()
    problem: str = ""
