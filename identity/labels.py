"""Which labels make a pod's identity, in one canonical order, so that equal pods of one cluster share a number."""

import re
from collections.abc import Mapping

from wire.labels import CLUSTER_LABEL, NAMESPACE_LABEL, NAMESPACE_LABELS_PREFIX, SERVICE_ACCOUNT_LABEL
from wire.records import Label

#: Labels that differ from pod to pod of one workload would give every pod a number of its own.
DEFAULT_DROP = (
    r"annotation\..*",
    r"apps\.kubernetes\.io/pod-index",
    r"batch\.kubernetes\.io/controller-uid",
    r"batch\.kubernetes\.io/job-completion-index",
    r"controller-revision-hash",
    r"controller-uid",
    r"io\.cilium\.k8s\..*",
    r"io\.kubernetes\..*",
    r"pod-template-generation",
    r"pod-template-hash",
    r"statefulset\.kubernetes\.io/pod-name",
)


class LabelFilter:
    """Decides which labels of a pod or namespace count. Patterns are matched against the whole key."""

    def __init__(self, drop: tuple[str, ...] = DEFAULT_DROP) -> None:
        self._drop = re.compile("|".join(f"(?:{pattern})" for pattern in drop) or r"(?!)")

    def __call__(self, key: str) -> bool:
        return self._drop.fullmatch(key) is None


_DEFAULT_FILTER = LabelFilter()


def identity_labels(
    *,
    pod_labels: Mapping[str, str],
    namespace: str,
    namespace_labels: Mapping[str, str],
    service_account: str,
    cluster: str,
    keep: LabelFilter = _DEFAULT_FILTER,
) -> tuple[Label, ...]:
    """The labels of a pod's identity, sorted: its own, its namespace's, its service account and its cluster.

    What the pod says under a key that the mesh itself gives (cluster, namespace, …) is not believed.
    """
    labels = {key: value for key, value in pod_labels.items() if keep(key)}
    labels |= {NAMESPACE_LABELS_PREFIX + key: value for key, value in namespace_labels.items() if keep(key)}
    labels[NAMESPACE_LABEL] = namespace
    labels[CLUSTER_LABEL] = cluster
    if service_account:
        labels[SERVICE_ACCOUNT_LABEL] = service_account
    return tuple(Label(key, value) for key, value in sorted(labels.items()))
