"""Label selectors over the labels of identities.

The labels of a pod are its Kubernetes labels by key. What the mesh itself says of an identity stands under keys that
no Kubernetes label can have: `reserved:<name>` and, for a prefix of addresses, `cidr:<prefix>` of every prefix around
it. So one kind of selector does for pods, entities and CIDRs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network

from identity.numbering import Reserved
from wire.labels import CLUSTER_LABEL, NAMESPACE_LABEL
from wire.records import Label

IPNetwork = IPv4Network | IPv6Network
Labels = Mapping[str, str]

WORLD_LABEL = "reserved:world"
_COMMON = (CLUSTER_LABEL, NAMESPACE_LABEL)


class Operator(StrEnum):
    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label; `values` are sorted, and empty for the operators that take none."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def holds(self, labels: Labels) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case Operator.IN:
                return value is not None and value in self.values
            case Operator.NOT_IN:
                return value is None or value not in self.values
            case Operator.EXISTS:
                return value is not None
            case Operator.DOES_NOT_EXIST:
                return value is None

    def __str__(self) -> str:
        if self.operator is Operator.IN and len(self.values) == 1:
            return f"{self.key}={self.values[0]}"
        values = f" ({', '.join(self.values)})" if self.values else ""
        return f"{self.key} {self.operator}{values}"


@dataclass(frozen=True, slots=True)
class Selector:
    """All requirements must hold; without any it selects everything. Equal conditions make equal selectors."""

    requirements: tuple[Requirement, ...] = ()

    @classmethod
    def of(cls, requirements: Iterable[Requirement]) -> "Selector":
        return cls(tuple(sorted(set(requirements), key=lambda r: (r.key, r.operator, r.values))))

    def matches(self, labels: Labels) -> bool:
        return all(requirement.holds(labels) for requirement in self.requirements)

    def pivot(self) -> Requirement | None:
        """A requirement that every selected identity meets by having a certain label; the rarest that can be told."""
        positive = [r for r in self.requirements if r.operator in (Operator.IN, Operator.EXISTS)]
        return min(positive, key=_commonness, default=None)

    def __str__(self) -> str:
        return ", ".join(map(str, self.requirements)) or "everything"


def _commonness(requirement: Requirement) -> tuple[bool, bool, int]:
    return requirement.key in _COMMON, requirement.operator is Operator.EXISTS, len(requirement.values)


def equals(key: str, value: str) -> Requirement:
    return Requirement(key, Operator.IN, (value,))


def exists(key: str) -> Requirement:
    return Requirement(key, Operator.EXISTS)


def select_cidr(network: IPNetwork, excepts: Iterable[IPNetwork] = ()) -> Selector:
    """Addresses outside the mesh in `network` but in none of `excepts`."""
    absent = (Requirement(f"cidr:{network}", Operator.DOES_NOT_EXIST) for network in excepts)
    return Selector.of((exists(f"cidr:{network}"), *absent))


def pod_labels(labels: Iterable[Label]) -> dict[str, str]:
    """The labels of an identity as a cluster published it. What only the mesh may say is not believed."""
    return {label.key: label.value for label in labels if label.source == "k8s" and ":" not in label.key}


def reserved_labels(reserved: Reserved) -> dict[str, str]:
    return {f"reserved:{reserved.name.lower().replace('_', '-')}": ""}


def cidr_labels(network: IPNetwork) -> dict[str, str]:
    """A prefix outside the mesh is part of the world and of every prefix around it."""
    around = (network.supernet(new_prefix=length) for length in range(network.prefixlen + 1))
    return {WORLD_LABEL: ""} | {f"cidr:{prefix}": "" for prefix in around}
