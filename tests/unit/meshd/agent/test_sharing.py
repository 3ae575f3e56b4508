from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from meshd.agent import sharing
from meshd.agent.decoding import decode_object
from meshd.agent.objects import EndpointSlice, ObjectKind, Pod, PodMetadata
from meshd.agent.sharing import Sharing
from tests.support import kubernetes
from tests.unit.meshd.agent.test_decoding import decode_pod

TEXT = st.sampled_from(["", "a", "b"])
PODS = st.builds(
    kubernetes.pod,
    st.sampled_from(["p", "q"]),
    st.sampled_from(["10.0.0.1", "10.0.0.2"]),
    namespace=st.sampled_from(["n", "m"]),
    labels=st.dictionaries(st.sampled_from(["x", "y"]), TEXT),
    phase=TEXT,
    ready=st.booleans(),
    terminating=st.booleans(),
    host_network=st.booleans(),
    ports=st.lists(st.builds(lambda name: {"name": name, "containerPort": 1}, TEXT), max_size=2),
)


@given(st.lists(PODS))
def test_a_shared_pod_equals_the_one_that_was_given(documents: list[dict[str, Any]]) -> None:
    shared = Sharing()
    for document in documents:
        decoded = decode_pod(document)
        assert shared.share(decoded) == decoded


def test_pods_of_one_workload_share_what_they_have_in_common() -> None:
    shared = Sharing()
    one, other = (shared.share(decode_pod(kubernetes.pod(f"p{n}", f"10.0.0.{n}", labels={"a": "b"}))) for n in (1, 2))
    assert one.metadata.labels is other.metadata.labels
    assert one.spec.containers is other.spec.containers
    assert one.status.conditions is other.status.conditions
    assert one.status.host_ip is other.status.host_ip


def test_what_is_remembered_is_bounded() -> None:
    shared = Sharing()
    for n in range(sharing.LIMIT + 10):
        shared.share(Pod(metadata=PodMetadata(name="p", labels={"n": str(n)})))
        shared.share(Pod(metadata=PodMetadata(name="p", namespace=str(n))))
    assert len(shared._parts) < sharing.LIMIT
    assert len(shared._label_sets) < sharing.LIMIT


def test_every_field_of_a_pod_is_kept() -> None:
    spec = {
        "nodeName": "a",
        "serviceAccountName": "b",
        "hostNetwork": True,
        "hostname": "c",
        "subdomain": "d",
        "containers": [{"ports": [{"name": "e", "containerPort": 1, "protocol": "UDP"}]}],
        "initContainers": [{"restartPolicy": "Always", "ports": [{"containerPort": 2}]}],
    }
    status = {
        "phase": "Running",
        "podIP": "10.0.0.1",
        "podIPs": [{"ip": "10.0.0.2"}],
        "hostIP": "10.0.0.3",
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    metadata = {"name": "f", "namespace": "g", "labels": {"h": "i"}, "deletionTimestamp": "j"}
    decoded = decode_pod({"kind": str(ObjectKind.POD), "metadata": metadata, "spec": spec, "status": status})
    assert Sharing().share(decoded) == decoded


def test_a_shared_slice_equals_the_one_that_was_given() -> None:
    endpoints: list[dict[str, Any]] = [
        {
            "addresses": [f"10.0.0.{n}", f"10.0.1.{n}"],
            "conditions": {"ready": True, "serving": False, "terminating": None},
            "hostname": "a",
            "nodeName": "b",
            "zone": "c",
            "hints": {"forZones": [{"name": "d"}]},
        }
        for n in range(2)
    ]
    _, decoded = decode_object(ObjectKind.ENDPOINT_SLICE, kubernetes.endpoint_slice("s", "web", endpoints))
    assert isinstance(decoded, EndpointSlice)
    shared = Sharing().share_slice(decoded)
    assert shared == decoded
    assert shared.endpoints[0].conditions is shared.endpoints[1].conditions
