from pathlib import Path

import msgspec
import pytest
import yaml

from meshd.agent.decoding import BadObject
from meshd.agent.objects import ObjectKind, Ref
from meshd.agent.sources.answers import RESOURCES, decode_head, decode_item

MANIFEST = Path(__file__).parents[5] / "kind-clusters" / "agent.yaml"


def test_every_kind_has_a_path() -> None:
    paths = {resource.kind: resource.path for resource in RESOURCES}
    assert paths.keys() == set(ObjectKind)
    assert paths[ObjectKind.POD] == "/api/v1/pods"
    assert paths[ObjectKind.ENDPOINT_SLICE] == "/apis/discovery.k8s.io/v1/endpointslices"
    assert {resource.kind for resource in RESOURCES if resource.optional} == {
        ObjectKind.CILIUM_POLICY,
        ObjectKind.CILIUM_CLUSTERWIDE_POLICY,
    }


def test_the_cluster_role_allows_what_is_asked_for_and_nothing_else() -> None:
    (role,) = (each for each in yaml.safe_load_all(MANIFEST.read_text()) if each["kind"] == "ClusterRole")
    assert all(rule["verbs"] == ["list", "watch"] for rule in role["rules"])
    allowed = {(group, name) for rule in role["rules"] for group in rule["apiGroups"] for name in rule["resources"]}
    asked = set()
    for resource in RESOURCES:
        *_, group, _, name = resource.path.split("/")
        asked.add(("" if group == "api" else group, name))
    assert allowed == asked


def test_the_role_of_imports_allows_to_write_slices_and_nothing_else() -> None:
    manifest = MANIFEST.with_name("agent-import.yaml")
    (role,) = (each for each in yaml.safe_load_all(manifest.read_text()) if each["kind"] == "ClusterRole")
    verbs = ["get", "create", "update", "delete"]
    assert role["rules"] == [{"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": verbs}]


@pytest.mark.parametrize("data", [b"3", b"{", b'{"metadata": 3}', b'{"metadata": {"name": "\xff"}}', b"[" * 5000])
def test_an_item_that_is_no_object_is_a_bad_object(data: bytes) -> None:
    with pytest.raises(BadObject):
        decode_item(ObjectKind.POD, msgspec.Raw(data))
    with pytest.raises(BadObject):
        decode_item(ObjectKind.NETWORK_POLICY, msgspec.Raw(data))


def test_the_head_says_which_object_at_which_version() -> None:
    data = b'{"metadata": {"name": "p", "namespace": "n", "resourceVersion": "7"}, "spec": 3}'
    assert decode_head(ObjectKind.POD, data) == (Ref(ObjectKind.POD, "n", "p"), "7")
