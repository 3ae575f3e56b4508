from identity.labels import LabelFilter, identity_labels
from wire.labels import format_labels


def text(**changes: object) -> str:
    given: dict[str, object] = {
        "pod_labels": {"name": "rebel-base", "pod-template-hash": "7d9c"},
        "namespace": "default",
        "namespace_labels": {"kubernetes.io/metadata.name": "default"},
        "service_account": "default",
        "cluster": "cluster1",
    }
    return format_labels(identity_labels(**(given | changes)))  # type: ignore[arg-type]


def test_the_labels_are_those_of_the_golden_identity() -> None:
    assert text() == (
        "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=default;"
        "k8s:io.cilium.k8s.policy.cluster=cluster1;k8s:io.cilium.k8s.policy.serviceaccount=default;"
        "k8s:io.kubernetes.pod.namespace=default;k8s:name=rebel-base;"
    )


def test_labels_that_differ_from_pod_to_pod_do_not_count() -> None:
    per_pod = {"controller-revision-hash": "a", "statefulset.kubernetes.io/pod-name": "db-0", "name": "rebel-base"}
    assert text(pod_labels=per_pod) == text()


def test_a_pod_cannot_say_that_it_is_of_another_cluster_or_namespace() -> None:
    forged = {
        "name": "rebel-base",
        "io.cilium.k8s.policy.cluster": "cluster2",
        "io.kubernetes.pod.namespace": "kube-system",
        "io.cilium.k8s.namespace.labels.team": "admins",
    }
    assert text(pod_labels=forged) == text()


def test_without_patterns_every_label_counts() -> None:
    assert "k8s:pod-template-hash=7d9c;" in text(keep=LabelFilter(()))
