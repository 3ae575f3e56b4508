from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.agent.decoding import BadObject, decode_object, kind_of
from meshd.agent.objects import ObjectKind, Pod, Ref, Service
from tests.support import kubernetes


def decode_pod(document: dict[str, Any]) -> Pod:
    _, decoded = decode_object(ObjectKind.POD, document)
    assert isinstance(decoded, Pod)
    return decoded


def decode_service(document: dict[str, Any]) -> Service:
    _, decoded = decode_object(ObjectKind.SERVICE, document)
    assert isinstance(decoded, Service)
    return decoded


def test_kinds_are_told_by_group_and_kind() -> None:
    assert kind_of(kubernetes.pod("p")) is ObjectKind.POD
    assert kind_of({"apiVersion": "serving.knative.dev/v1", "kind": "Service"}) is None
    assert kind_of({"apiVersion": "apps/v1", "kind": "Deployment"}) is None
    assert kind_of({"kind": 3}) is None


def test_a_namespaced_object_without_namespace_is_in_default() -> None:
    ref, _ = decode_object(ObjectKind.SERVICE, {"metadata": {"name": "a"}})
    assert ref == Ref(ObjectKind.SERVICE, "default", "a")


def test_nodes_and_namespaces_have_no_namespace() -> None:
    ref, _ = decode_object(ObjectKind.NODE, {"metadata": {"name": "a", "namespace": "b"}})
    assert ref == Ref(ObjectKind.NODE, "", "a")
    assert str(ref) == "Node a"


def test_null_means_not_given() -> None:
    decoded = decode_pod({"metadata": {"name": "p", "labels": None}, "spec": {"containers": None}, "status": None})
    assert decoded.metadata.labels == {}
    assert decoded.addresses == []


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"metadata": {}}, "is no name"),
        ({"metadata": {"name": "a/b"}}, "is no name"),
        ({"metadata": {"name": "A"}}, "metadata.name 'A' is no name"),
        ({"metadata": {"name": "a", "namespace": "a;b"}}, "metadata.namespace 'a;b' is no name"),
        ({"metadata": {"name": "a", "labels": {"a=b": ""}}}, "'a=b' is no key of a label"),
        ({"metadata": {"name": "a", "labels": {"": ""}}}, "'' is no key of a label"),
        ({"metadata": {"name": "a", "labels": {"a": "x;k8s:b=c"}}}, "'x;k8s:b=c' (of a) is no value of a label"),
        ({"metadata": {"name": "a", "annotations": {"a b": ""}}}, "'a b' is no key of an annotation"),
        ({"metadata": {"name": "a", "annotations": {"meshd.io/": ""}}}, "'meshd.io/' is no key of an annotation"),
        ({}, "metadata"),
        ({"metadata": {"name": "a", "labels": {"x": True}}}, "Expected `str`, got `bool` - at `$.metadata.labels"),
        ({"metadata": {"name": "a"}, "spec": {"ports": [{"port": "80"}]}}, "$.spec.ports[0].port"),
    ],
)
def test_what_cannot_be_used_is_named(document: dict[str, Any], words: str) -> None:
    with pytest.raises(BadObject) as caught:
        decode_object(ObjectKind.SERVICE, document)
    assert words in str(caught.value)


def test_keys_of_annotations_may_have_capitals_before_the_slash() -> None:
    document = {"metadata": {"name": "a", "annotations": {"Example.org/Key_1": "any value; \n at all"}}}
    assert decode_object(ObjectKind.NODE, document)[0].name == "a"


def test_a_pod_cannot_claim_another_identity_through_its_account() -> None:
    with pytest.raises(BadObject, match=r"spec\.serviceAccountName"):
        decode_pod(kubernetes.pod("p", service_account="x;k8s:io.kubernetes.pod.namespace=kube-system"))


def test_pod_addresses_fall_back_to_the_single_one() -> None:
    assert decode_pod({"metadata": {"name": "p"}, "status": {"podIP": "10.0.0.1"}}).addresses == ["10.0.0.1"]
    assert decode_pod(kubernetes.pod("p", "10.0.0.1", "fd00::1")).addresses == ["10.0.0.1", "fd00::1"]


def test_only_sidecars_among_init_containers_listen() -> None:
    spec = {
        "containers": [{"ports": [{"containerPort": 1}]}],
        "initContainers": [
            {"ports": [{"containerPort": 2}]},
            {"ports": [{"containerPort": 3}], "restartPolicy": "Always"},
        ],
    }
    decoded = decode_pod({"metadata": {"name": "p"}, "spec": spec})
    assert [port.container_port for port in decoded.ports] == [1, 3]


def test_headless_services_have_no_cluster_ips() -> None:
    assert decode_service(kubernetes.service("s", "None")).is_headless
    assert decode_service(kubernetes.service("s", "None")).cluster_ips == []
    labelled = kubernetes.service("s", "30.1.1.1", labels={"service.kubernetes.io/headless": ""})
    assert decode_service(labelled).cluster_ips == []
    assert decode_service({"metadata": {"name": "s"}, "spec": {"clusterIP": "30.1.1.1"}}).cluster_ips == ["30.1.1.1"]
    assert not decode_service(kubernetes.service("s")).is_headless


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
FIELDS = ["metadata", "spec", "status", "name", "labels", "ports", "endpoints", "conditions", "podIPs", "addresses"]
DOCUMENTS = st.dictionaries(
    st.sampled_from(FIELDS),
    JSON | st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4),
    max_size=5,
)


@given(st.sampled_from(ObjectKind), DOCUMENTS)
def test_any_document_is_an_object_or_a_bad_object(kind: ObjectKind, document: dict[str, Any]) -> None:
    with suppress(BadObject):
        ref, _ = decode_object(kind, document)
        assert ref.name
