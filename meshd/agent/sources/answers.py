"""What the API server answers: pages of a list, events of a watch, refusals. JSON, decoded no further than needed."""

from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Raw, Struct, field

from meshd.agent.decoding import API_VERSIONS, TYPES, BadObject, check_object, decode_object
from meshd.agent.objects import KubernetesObject, ObjectKind, Policy, Ref


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind and its path below the server's URL. `optional`: a server without it is a server without such objects."""

    kind: ObjectKind
    path: str
    optional: bool = False


def _resource(kind: ObjectKind, plural: str) -> Resource:
    version = API_VERSIONS[kind]
    return Resource(kind, f"{'/apis' if '/' in version else '/api'}/{version}/{plural}", version == "cilium.io/v2")


RESOURCES = tuple(
    _resource(kind, plural)
    for kind, plural in {
        ObjectKind.NAMESPACE: "namespaces",
        ObjectKind.NODE: "nodes",
        ObjectKind.POD: "pods",
        ObjectKind.SERVICE: "services",
        ObjectKind.ENDPOINT_SLICE: "endpointslices",
        ObjectKind.NETWORK_POLICY: "networkpolicies",
        ObjectKind.CILIUM_POLICY: "ciliumnetworkpolicies",
        ObjectKind.CILIUM_CLUSTERWIDE_POLICY: "ciliumclusterwidenetworkpolicies",
    }.items()
)


class _ListMeta(Struct, frozen=True, gc=False):
    resource_version: str = field(name="resourceVersion", default="")
    token: str = field(name="continue", default="")


class Page(Struct, frozen=True, gc=False):
    """Part of a list. `metadata.token` is "" on the last one."""

    metadata: _ListMeta
    items: list[Raw] | None = None


class Event(Struct, frozen=True, gc=False):
    """One line of a watch: ADDED, MODIFIED, DELETED, BOOKMARK or ERROR."""

    type: str
    object: Raw


class Status(Struct, frozen=True, gc=False):
    """Why the API server did not do as asked."""

    code: int = 0
    message: str = ""


class _Where(Struct, frozen=True, gc=False):
    name: str = ""
    namespace: str = ""
    resource_version: str = field(name="resourceVersion", default="")


class _Head(Struct, frozen=True, gc=False):
    metadata: _Where = _Where()


#: What the decoder raises.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_page = msgspec.json.Decoder(Page)
_event = msgspec.json.Decoder(Event)
_status = msgspec.json.Decoder(Status)
_head = msgspec.json.Decoder(_Head)
_objects: dict[ObjectKind, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(form) for kind, form in TYPES.items() if form is not Policy
}


class BadAnswer(ValueError):
    """Not what an API server says."""


def decode_page(data: bytes) -> Page:
    """Raises BadAnswer."""
    try:
        return _page.decode(data)
    except _UNREADABLE as error:
        raise BadAnswer(f"not a list ({error})") from error


def decode_event(line: bytes) -> Event:
    """Raises BadAnswer."""
    try:
        return _event.decode(line)
    except _UNREADABLE as error:
        raise BadAnswer(f"not an event of a watch ({error})") from error


def decode_status(data: bytes | Raw) -> Status:
    """An empty one if it cannot be read."""
    try:
        return _status.decode(data)
    except _UNREADABLE:
        return Status()


def decode_head(kind: ObjectKind, data: bytes | Raw) -> tuple[Ref, str]:
    """Which object it is and at which version. Raises BadAnswer."""
    try:
        where = _head.decode(data).metadata
    except _UNREADABLE as error:
        raise BadAnswer(f"{kind} without a name ({error})") from error
    return Ref(kind, where.namespace, where.name), where.resource_version


def decode_item(kind: ObjectKind, data: Raw) -> tuple[Ref, KubernetesObject]:
    """Raises BadObject. What holds a null somewhere is read the slow way, in which null means "not given"."""
    try:
        if decoder := _objects.get(kind):
            return check_object(kind, decoder.decode(data))
    except msgspec.ValidationError:
        pass
    except _UNREADABLE as error:
        raise BadObject(str(error)) from error
    try:
        document = msgspec.json.decode(data)
    except _UNREADABLE as error:
        raise BadObject(str(error)) from error
    if not isinstance(document, dict):
        raise BadObject(f"is no object but {type(document).__name__}")
    return decode_object(kind, document)
