"""The API server's part: manifests in, running objects with status out, a YAML file each, replaced atomically.

The files are what the agent watches. Writers hold the testbed's lock; readers need none.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from meshd.config import ConfigError

Object = dict[str, Any]
POLICY_KINDS = ("NetworkPolicy", "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy")
KINDS = ("Namespace", "ConfigMap", "Node", "Pod", "Service", *POLICY_KINDS)
NAME_MAX = 253
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_CLUSTERWIDE = ("Namespace", "Node", "CiliumClusterwideNetworkPolicy")


def read_manifests(folders: list[Path]) -> list[Object]:
    """All objects of the YAML files in the folders, in file order, with the defaults that an API server adds.

    Raises ConfigError naming the file.
    """
    return [obj for folder in folders for path in sorted(folder.glob("*.yaml")) for obj in read_manifest(path)]


def read_manifest(path: Path) -> list[Object]:
    """All objects of one YAML file. Raises ConfigError naming the file."""
    return [defaulted(document, path) for document in _documents(path)]


def _documents(path: Path) -> Iterator[Any]:
    try:
        documents = list(yaml.load_all(path.read_text(), Loader=_Loader))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {error}") from error
    yield from (document for document in documents if document is not None)


_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def defaulted(document: Any, origin: Path) -> Object:
    """A copy of a manifest with an API server's defaults; raises ConfigError for what the testbed cannot run."""
    if not isinstance(document, dict) or document.get("kind") not in KINDS:
        kind = document.get("kind") if isinstance(document, dict) else type(document).__name__
        raise ConfigError(f"{origin}: the testbed runs {', '.join(KINDS)}, not {kind}")
    metadata = dict(document.get("metadata") or {})
    if not metadata.get("name"):
        raise ConfigError(f"{origin}: a {document['kind']} without metadata.name")
    if document["kind"] not in _CLUSTERWIDE:
        metadata.setdefault("namespace", "default")
    obj: Object = {**document, "metadata": metadata}
    if obj["kind"] == "Service":
        spec = dict(obj["spec"])
        spec["ports"] = [{"protocol": "TCP", "targetPort": port["port"], **port} for port in spec.get("ports", ())]
        spec.setdefault("type", "ClusterIP")
        if spec.get("clusterIP"):
            spec.setdefault("clusterIPs", [spec["clusterIP"]])
        obj["spec"] = spec
    return obj


def check_name(name: str) -> None:
    """Raises ConfigError if an API server would not take it as the name of a pod (RFC 1123 subdomain)."""
    if len(name) > NAME_MAX or not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is no name for a pod: a-z, 0-9, '-' and '.', at most {NAME_MAX}, no '-' at the ends"
        )


def check_annotation(key: str) -> None:
    """Raises ConfigError if an API server would not take it as the key of an annotation: [DNS name/]word."""
    prefix, slash, word = key.rpartition("/")
    if (slash and (len(prefix) > NAME_MAX or not _NAME.fullmatch(prefix))) or not _QUALIFIED.fullmatch(word):
        raise ConfigError(
            f"{key!r} is no key for an annotation: an optional DNS name and '/', then up to 63 letters, digits, "
            "'-', '_' and '.', the first and the last no sign"
        )


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Has the pod the condition Ready, and is nobody deleting it?"""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = pod.get("status", {}).get("conditions", ())
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


class Objects:
    """The running objects of one cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def list(self, kind: str) -> list[Object]:
        """All objects of a kind, sorted by file name."""
        return [_load(path) for path in sorted(self.folder.glob(f"{kind.lower()}.*.yaml"))]

    def has(self, obj: Object) -> bool:
        """Is there an object of this kind and name?"""
        metadata = obj["metadata"]
        return self._path(obj["kind"], metadata.get("namespace", ""), metadata["name"]).exists()

    def get(self, kind: str, name: str, namespace: str = "default") -> Object:
        """Raises KeyError with the names that there are."""
        path = self._path(kind, namespace, name)
        if not path.exists():
            known = sorted(obj["metadata"]["name"] for obj in self.list(kind))
            raise KeyError(f"no {kind} {name!r}{_inside(kind, namespace)}; there are: {', '.join(known) or 'none'}")
        return _load(path)

    def write(self, obj: Object) -> None:
        """Creates or replaces, in one step for the agent that watches. The same again writes nothing."""
        metadata = obj["metadata"]
        path = self._path(obj["kind"], metadata.get("namespace", ""), metadata["name"])
        text = yaml.dump(obj, Dumper=_Dumper, sort_keys=False, default_flow_style=False)
        if path.exists() and path.read_text() == text:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text(text)
        os.replace(temporary, path)

    def delete(self, obj: Object) -> None:
        """Absent is success."""
        metadata = obj["metadata"]
        self._path(obj["kind"], metadata.get("namespace", ""), metadata["name"]).unlink(missing_ok=True)

    def _path(self, kind: str, namespace: str, name: str) -> Path:
        inside = "" if kind in _CLUSTERWIDE else f"{namespace}."
        return self.folder / f"{kind.lower()}.{inside}{name}.yaml"


def _inside(kind: str, namespace: str) -> str:
    return "" if kind in _CLUSTERWIDE else f" in namespace {namespace}"


def _load(path: Path) -> Object:
    """Raises ConfigError naming the file: somebody else has written into it."""
    try:
        obj = yaml.load(path.read_text(), Loader=_Loader)  # noqa: S506 — the C twin of the safe loader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not YAML any more: mend it or remove it ({error})") from error
    if not isinstance(obj, dict) or not isinstance(obj.get("metadata"), dict):
        raise ConfigError(f"{path}: is no Kubernetes object any more: mend it or remove it")
    return obj
