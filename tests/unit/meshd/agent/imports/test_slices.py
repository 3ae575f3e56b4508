import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.agent.imports.slices import FULL, document_of, imported_slices, says_the_same, source_of
from meshd.agent.objects import EndpointSlice, ObjectKind
from meshd.agent.sources.answers import decode_item
from tests.support.apirules import refusal
from wire.records import ForZone, L4Addr, PortMap, Service, Zone

DB = ("default", "db")
HTTP = {"http": L4Addr("TCP", 8080)}


def slices(backends: dict[str, PortMap | None], **more: object) -> dict[str, EndpointSlice]:
    record = msgspec.structs.replace(Service(cluster="c2", namespace="default", name="db", backends=backends), **more)
    return imported_slices(DB, "c2", record)


def addresses(found: dict[str, EndpointSlice]) -> list[str]:
    return sorted(ip for each in found.values() for endpoint in each.endpoints for ip in endpoint.addresses)


def test_a_slice_says_what_the_record_says() -> None:
    zones = {"20.0.0.1": Zone("a", [ForZone("a")])}
    found = slices({"20.0.0.1": HTTP, "20.0.0.2": HTTP}, hostnames={"20.0.0.1": "db-0", "20.0.0.2": "D_"}, zones=zones)
    ((name, each),) = found.items()
    assert source_of(each) == "c2"
    assert each.is_ours
    assert each.is_imported
    assert document_of(each) == {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {
                "kubernetes.io/service-name": "db",
                "endpointslice.kubernetes.io/managed-by": "endpointslice-mesh.meshd.io",
                "multicluster.kubernetes.io/source-cluster": "c2",
                "service.kubernetes.io/headless": "",
            },
        },
        "addressType": "IPv4",
        "endpoints": [
            {
                "addresses": ["20.0.0.1"],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "hostname": "db-0",
                "zone": "a",
            },
            {"addresses": ["20.0.0.2"], "conditions": {"ready": True, "serving": True, "terminating": False}},
        ],
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
    }


def test_families_and_port_sets_have_slices_of_their_own() -> None:
    backends: dict[str, PortMap | None] = {
        "20.0.0.1": HTTP,
        "20.0.0.2": {"http": L4Addr("TCP", 9090)},
        "fd00::1": HTTP,
        "20.0.0.3": None,
    }
    found = slices(backends)
    assert len(found) == 4
    assert addresses(found) == sorted(backends)


@given(st.sets(st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(str), max_size=300))
def test_every_address_stands_in_one_slice_that_kubernetes_takes_and_tells_again(ips: set[str]) -> None:
    found = slices(dict.fromkeys(ips, HTTP))
    assert addresses(found) == sorted(ips)
    for name, each in found.items():
        document = document_of(each)
        assert refusal("POST", document, {}) is None
        assert len(name) <= 253
        _, again = decode_item(ObjectKind.ENDPOINT_SLICE, msgspec.Raw(json.dumps(document).encode()))
        assert isinstance(again, EndpointSlice)
        assert says_the_same(again, each)


@pytest.mark.parametrize("count", [FULL - 5, 3 * FULL, 1000])
def test_a_pod_that_comes_changes_one_slice(count: int) -> None:
    ips = [f"20.0.{n >> 8}.{n & 255}" for n in range(count)]
    before, after = slices(dict.fromkeys(ips, HTTP)), slices(dict.fromkeys([*ips, "20.9.9.9"], HTTP))
    assert before.keys() == after.keys()
    assert sum(not says_the_same(before[name], after[name]) for name in before) == 1


def test_labels_of_others_are_no_difference() -> None:
    (each,) = slices({"20.0.0.1": HTTP}).values()
    labels = each.metadata.labels | {"team": "x"}
    assert says_the_same(
        msgspec.structs.replace(each, metadata=msgspec.structs.replace(each.metadata, labels=labels)), each
    )


def test_services_with_alike_names_have_different_slices() -> None:
    record = Service(backends={"20.0.0.1": HTTP})
    names = [*imported_slices(("n", "a"), "b-c", record), *imported_slices(("n", "a-b"), "c", record)]
    assert len(set(names)) == 2
