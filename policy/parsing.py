"""From a policy as the API server gave it to what it says. Never raises: a policy that cannot be read is invalid."""

from collections.abc import Mapping
from typing import Any

from policy import cilium, kubernetes
from policy.fields import InvalidPolicy
from policy.model import Direction, Policy, PolicyKind, PolicyRef, Rule, Section
from policy.scope import Scope
from policy.selector import IPNetwork, Selector


def parse_policy(ref: PolicyRef, document: object, scope: Scope) -> Policy:
    """`document` has `spec` (or `specs`, of Cilium's kinds)."""
    whole = document if isinstance(document, Mapping) else {}
    networks: set[IPNetwork] = set()
    try:
        if ref.kind is PolicyKind.KUBERNETES:
            sections = [kubernetes.read_section(_object(whole.get("spec"), "spec"), ref.namespace, scope, networks)]
        else:
            sections = [
                cilium.read_section(_object(spec, place), place, ref.namespace, scope, networks)
                for place, spec in cilium.specs_of(whole)
            ]
    except InvalidPolicy as error:
        return Policy(ref, _closed(ref, whole, scope), problem=str(error))
    return Policy(ref, tuple(sections), frozenset(networks))


def _object(spec: object, place: str) -> Mapping[str, Any]:
    if not isinstance(spec, Mapping):
        raise InvalidPolicy(f"{place}: must be an object")
    return {key: value for key, value in spec.items() if value is not None}


def _closed(ref: PolicyRef, document: Mapping[str, Any], scope: Scope) -> tuple[Section, ...]:
    """What an invalid policy selects is closed in the directions that it names. What other policies allow passes
    still, as they would beside a valid one; but where this one denies, everything is denied.
    """
    specs = [document.get("spec"), *(document["specs"] if isinstance(document.get("specs"), list) else [])]
    sections = []
    for spec in specs:
        if not isinstance(spec, Mapping):
            continue
        try:
            sections.append(_closed_section(ref, _object(spec, "spec"), scope))
        except InvalidPolicy:
            continue  # nobody can tell what it selects: it is shown as invalid, and selects nothing
    return tuple(sections)


def _closed_section(ref: PolicyRef, spec: Mapping[str, Any], scope: Scope) -> Section:
    if ref.kind is PolicyKind.KUBERNETES:
        return Section(kubernetes.subject(spec, ref.namespace, scope), kubernetes.directions(spec), ())
    subject: Selector = cilium.subject(spec, "spec", ref.namespace, scope)
    denied = cilium.directions(spec, deny_only=True)
    rules = tuple(Rule(direction, True, None, None, "invalid") for direction in Direction if direction in denied)
    return Section(subject, cilium.named_directions(spec), rules)
