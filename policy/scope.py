"""Which pods a selector means where it does not say cluster or namespace."""

from collections.abc import Mapping
from dataclasses import dataclass

from policy.fields import Fields, InvalidPolicy
from policy.selector import Operator, Requirement, Selector, equals, exists
from wire.labels import CLUSTER_LABEL, NAMESPACE_LABEL, NAMESPACE_LABELS_PREFIX

NAMESPACE_NAME_LABEL = "kubernetes.io/metadata.name"
_SOURCES = ("k8s", "any")


@dataclass(frozen=True, slots=True)
class Scope:
    """`cluster` is the local one. `default_local`: a peer selector that names no cluster means the local cluster."""

    cluster: str
    default_local: bool = True

    def peers(self, requirements: list[Requirement], namespace: str) -> Selector:
        """Pods that a rule talks about; "" is any namespace. Reserved labels need neither cluster nor namespace."""
        keys = {requirement.key for requirement in requirements}
        if any(key.startswith("reserved:") for key in keys):
            return Selector.of(requirements)
        named = NAMESPACE_LABEL in keys or any(key.startswith(NAMESPACE_LABELS_PREFIX) for key in keys)
        if namespace and not named:
            requirements = [*requirements, equals(NAMESPACE_LABEL, namespace)]
        if CLUSTER_LABEL not in keys:
            local = equals(CLUSTER_LABEL, self.cluster) if self.default_local else exists(CLUSTER_LABEL)
            requirements = [*requirements, local]
        return Selector.of(requirements)

    def subject(self, requirements: list[Requirement], namespace: str) -> Selector:
        """Pods that a policy is for: of the local cluster and, if it has one, of its own namespace."""
        own = [equals(NAMESPACE_LABEL, namespace)] if namespace else []
        return Selector.of((*requirements, *own, equals(CLUSTER_LABEL, self.cluster)))


def read_requirements(value: object, place: str, *, sources: bool) -> list[Requirement]:
    """A label selector of Kubernetes; `sources`: keys may have Cilium's prefix (`k8s:app`). Raises InvalidPolicy."""
    fields = Fields(value if value is not None else {}, place)
    labels = fields.take("matchLabels") or {}
    if not isinstance(labels, Mapping):
        raise InvalidPolicy(f"{place}.matchLabels: must be an object")
    requirements = []
    for key, wanted in labels.items():
        if not isinstance(key, str) or not isinstance(wanted, str):
            raise InvalidPolicy(f"{place}.matchLabels: {key!r}: label and value must be text")
        requirements.append(equals(_key(key, f"{place}.matchLabels", sources), wanted))
    for at, expression in fields.items("matchExpressions"):
        requirements.append(_expression(Fields(expression, at), sources))
    fields.done()
    return requirements


def read_namespace_requirements(value: object, place: str) -> list[Requirement]:
    """A selector of namespaces, as requirements on the identities of the pods in them."""
    requirements = [exists(NAMESPACE_LABEL)]
    for requirement in read_requirements(value, place, sources=False):
        # A namespace's name label is its name: so this works also where no namespace object tells its labels.
        by_name = requirement.key == NAMESPACE_NAME_LABEL
        key = NAMESPACE_LABEL if by_name else NAMESPACE_LABELS_PREFIX + requirement.key
        requirements.append(Requirement(key, requirement.operator, requirement.values))
    return requirements


def _expression(fields: Fields, sources: bool) -> Requirement:
    key = _key(fields.text("key"), fields.at("key"), sources)
    text = fields.text("operator")
    if text not in list(Operator):
        raise InvalidPolicy(f"{fields.at('operator')}: {text!r} is none of {', '.join(Operator)}")
    operator = Operator(text)
    values = tuple(sorted(set(fields.texts("values"))))
    if (operator in (Operator.IN, Operator.NOT_IN)) != bool(values):
        raise InvalidPolicy(f"{fields.at('values')}: {operator} takes {'none' if values else 'at least one'}")
    fields.done()
    return Requirement(key, operator, values)


def _key(key: str, place: str, sources: bool) -> str:
    source, colon, rest = key.partition(":")
    if not key:
        raise InvalidPolicy(f"{place}: a label needs a key")
    if not colon:
        return key
    if sources and source in _SOURCES and rest and ":" not in rest:
        return rest
    if sources and source == "reserved" and rest:
        return key
    raise InvalidPolicy(f"{place}: {key!r}: labels of source {source!r} are not supported")
