"""Label sets as the text that stands in etcd: `source:key=value;` each, sorted by key, the last one with its ";"."""

from collections.abc import Iterable
from functools import lru_cache
from sys import intern

from wire.records import Label

CLUSTER_LABEL = "io.cilium.k8s.policy.cluster"
NAMESPACE_LABEL = "io.kubernetes.pod.namespace"
NAMESPACE_LABELS_PREFIX = "io.cilium.k8s.namespace.labels."
KEPT = 1 << 12
SHORT = 320  # characters of key and value; Kubernetes' have no more, and what is longer is not kept for a peer
SERVICE_ACCOUNT_LABEL = "io.cilium.k8s.policy.serviceaccount"


def format_labels(labels: Iterable[Label]) -> str:
    """The canonical text: sorted, so that equal sets have equal text."""
    return "".join(f"{label.source}:{label.key}={label.value};" for label in sorted(labels))


@lru_cache(KEPT)
def _label(key: str, value: str, source: str) -> Label:
    """The same label stands in very many identities."""
    return Label(intern(key), intern(value), intern(source))


def parse_labels(text: str) -> tuple[Label, ...]:
    """The labels of a text. A value may contain "=" and ":"; a label without source has the source "unspec".

    Raises ValueError if a label has no key.
    """
    labels = []
    for part in text.split(";"):
        if not part:
            continue
        name, _, value = part.partition("=")
        source, colon, key = name.partition(":")
        if not colon:
            source, key = "unspec", name
        if not key:
            raise ValueError(f"label {part!r} has no key")
        make = _label if len(part) <= SHORT else Label
        labels.append(make(key, value, source))
    return tuple(labels)
