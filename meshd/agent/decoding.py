"""Documents as Kubernetes objects.

One that is none of our kinds is no error; one that is of our kind and cannot be used is a BadObject.
"""

import re
from typing import Any

import msgspec

from meshd.agent.objects import (
    EndpointSlice,
    KubernetesObject,
    Namespace,
    Node,
    ObjectKind,
    Pod,
    PodMetadata,
    Policy,
    PolicyMetadata,
    Ref,
    Service,
)

MAX_NAME = 253
_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?")
_WORD = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL_KEY = re.compile(rf"(?:[a-z0-9](?:[-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_WORD}")
_LABEL_VALUE = re.compile(rf"(?:{_WORD})?")

TYPES: dict[ObjectKind, type[KubernetesObject]] = {
    ObjectKind.NAMESPACE: Namespace,
    ObjectKind.NODE: Node,
    ObjectKind.POD: Pod,
    ObjectKind.SERVICE: Service,
    ObjectKind.ENDPOINT_SLICE: EndpointSlice,
    ObjectKind.NETWORK_POLICY: Policy,
    ObjectKind.CILIUM_POLICY: Policy,
    ObjectKind.CILIUM_CLUSTERWIDE_POLICY: Policy,
}
#: The API group and version of each kind.
API_VERSIONS = dict.fromkeys(ObjectKind, "v1") | {
    ObjectKind.ENDPOINT_SLICE: "discovery.k8s.io/v1",
    ObjectKind.NETWORK_POLICY: "networking.k8s.io/v1",
    ObjectKind.CILIUM_POLICY: "cilium.io/v2",
    ObjectKind.CILIUM_CLUSTERWIDE_POLICY: "cilium.io/v2",
}
_CLUSTER_WIDE = (ObjectKind.NAMESPACE, ObjectKind.NODE, ObjectKind.CILIUM_CLUSTERWIDE_POLICY)
_KINDS = frozenset(str(kind) for kind in ObjectKind)


class BadObject(ValueError):
    """An object of ours that cannot be used; str(error) says which field and why."""


def kind_of(document: dict[str, Any]) -> ObjectKind | None:
    """Which of our kinds a document is, None if it is another one, which others may need."""
    kind = document.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        return None
    known = ObjectKind(kind)
    return known if document.get("apiVersion", API_VERSIONS[known]) == API_VERSIONS[known] else None


def decode_object(kind: ObjectKind, document: dict[str, Any]) -> tuple[Ref, KubernetesObject]:
    """A document of a kind of ours. Null means "not given", as in Kubernetes. Raises BadObject."""
    try:
        decoded = _policy(document) if TYPES[kind] is Policy else _convert(document, TYPES[kind])
    except (msgspec.ValidationError, RecursionError) as error:
        raise BadObject(str(error)) from error
    return check_object(kind, decoded)


def check_object(kind: ObjectKind, decoded: KubernetesObject) -> tuple[Ref, KubernetesObject]:
    """Which object it is, held to the API server's rules for names and labels. Raises BadObject."""
    _check_text(decoded)
    name, namespace = decoded.metadata.name, decoded.metadata.namespace
    if kind in _CLUSTER_WIDE:
        return Ref(kind, "", name), decoded
    return Ref(kind, namespace or "default", name), decoded


def _convert(document: dict[str, Any], as_type: type[KubernetesObject]) -> KubernetesObject:
    return msgspec.convert(_without_nulls(document), as_type)


def _policy(document: dict[str, Any]) -> Policy:
    """Nulls stay: a list of peers that lost its only item would let everybody in."""
    metadata = msgspec.convert(_without_nulls(document.get("metadata", {})), PolicyMetadata)
    rules = {name: document[name] for name in ("spec", "specs") if document.get(name) is not None}
    try:
        return Policy(metadata=metadata, rules=msgspec.json.encode(rules, order="sorted"))
    except (TypeError, ValueError, OverflowError) as error:
        raise BadObject(f"spec cannot be written as JSON ({error})") from error


def _check_text(decoded: KubernetesObject) -> None:
    """The rules of the API server for what becomes a key in etcd, or part of an identity: a folder has no API server.

    Without them a label could bring a `;` along and pass for several.
    """
    names = {"metadata.name": decoded.metadata.name, "metadata.namespace": decoded.metadata.namespace or "default"}
    if isinstance(decoded, Pod):
        names["spec.serviceAccountName"] = decoded.spec.service_account_name or "default"
    for where, name in names.items():
        if len(name) > MAX_NAME or not _NAME.fullmatch(name):
            raise BadObject(f"{where} {name!r} is no name (a-z, 0-9, '-' and '.', at most {MAX_NAME})")
    if isinstance(decoded, Policy):
        return
    if not isinstance(decoded.metadata, PodMetadata):
        for key in decoded.metadata.annotations:
            if not _LABEL_KEY.fullmatch(key.lower()):
                raise BadObject(f"metadata.annotations: {key!r} is no key of an annotation")
    for key, value in decoded.metadata.labels.items():
        if not _LABEL_KEY.fullmatch(key):
            raise BadObject(f"metadata.labels: {key!r} is no key of a label")
        if not _LABEL_VALUE.fullmatch(value):
            raise BadObject(f"metadata.labels: {value!r} (of {key}) is no value of a label")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value if item is not None]
    return value
