from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.agent.decoding import decode_object, kind_of
from meshd.agent.endpoints import Endpoint, canonical_ip, endpoints_of, is_usable
from meshd.agent.objects import MANAGED_BY_LABEL, MESH_SLICE_MANAGERS
from meshd.agent.state import Changes, LocalState
from tests.support import kubernetes
from wire.records import L4Addr

NAME = ("default", "web")


def state_of(*documents: dict[str, Any]) -> LocalState:
    state = LocalState()
    decoded = [decode_object(kind, document) for document in documents if (kind := kind_of(document))]
    assert len(decoded) == len(documents)
    state.apply(Changes(dict(decoded), synced=True))
    return state


def from_pods(*pods: dict[str, Any], **service: Any) -> dict[str, Endpoint]:
    web = kubernetes.service("web", *service.pop("cluster_ips", ["30.1.1.1"]), selector={"app": "web"}, **service)
    found, odd = endpoints_of(state_of(web, *pods), NAME)
    assert not odd
    return {endpoint.ip: endpoint for endpoint in found}


def web_pod(name: str, *ips: str, **more: Any) -> dict[str, Any]:
    return kubernetes.pod(name, *ips, labels={"app": "web", "tier": "x"}, **more)


@pytest.mark.parametrize(
    ("ready", "terminating", "publish_all", "conditions", "state"),
    [
        (True, False, False, (True, True, False), "active"),
        (False, False, False, (False, False, False), "not-ready"),
        (True, True, False, (False, True, True), "terminating"),
        (False, True, False, (False, False, True), "not-ready"),
        (False, False, True, (True, False, False), "active"),
        (False, True, True, (True, False, True), "active"),
    ],
)
def test_conditions_of_a_pod(
    *, ready: bool, terminating: bool, publish_all: bool, conditions: tuple[bool, bool, bool], state: str
) -> None:
    pod = web_pod("p", "10.0.0.1", ready=ready, terminating=terminating)
    endpoint = from_pods(pod, publishNotReadyAddresses=publish_all)["10.0.0.1"]
    assert (endpoint.ready, endpoint.serving, endpoint.terminating) == conditions
    assert endpoint.state == state
    assert endpoint.is_exported == (endpoint.ready or endpoint.serving)


def test_only_selected_pods_that_run_are_endpoints() -> None:
    found = from_pods(
        web_pod("a", "10.0.0.1"),
        web_pod("other-namespace", "10.0.0.2", namespace="shop"),
        kubernetes.pod("other-labels", "10.0.0.3", labels={"app": "db"}),
        web_pod("finished", "10.0.0.4", phase="Succeeded"),
        web_pod("without-address"),
        web_pod("on-the-host", "172.18.1.11", host_network=True),
    )
    assert list(found) == ["10.0.0.1", "172.18.1.11"]


def test_target_ports_by_number_by_name_and_by_default() -> None:
    ports = [
        {"name": "by-name", "port": 80, "targetPort": "web"},
        {"name": "by-number", "port": 81, "targetPort": 8081},
        {"name": "as-text", "port": 82, "targetPort": "8082"},
        {"name": "default", "port": 83},
        {"name": "other-protocol", "port": 84, "protocol": "UDP", "targetPort": "web"},
        {"name": "unknown", "port": 85, "targetPort": "nowhere"},
        {"name": "odd", "port": 86, "protocol": "ICMP"},
    ]
    pod = web_pod("p", "10.0.0.1", ports=[{"name": "web", "containerPort": 8080}])
    assert from_pods(pod, ports=ports)["10.0.0.1"].ports == {
        "as-text": L4Addr("TCP", 8082),
        "by-name": L4Addr("TCP", 8080),
        "by-number": L4Addr("TCP", 8081),
        "default": L4Addr("TCP", 83),
    }


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ({"cluster_ips": ["30.1.1.1"]}, ["10.0.0.1"]),
        ({"cluster_ips": ["30.1.1.1", "fd00:30::1"]}, ["10.0.0.1", "fd00::1"]),
        ({"cluster_ips": ["None"]}, ["10.0.0.1", "fd00::1"]),
        ({"cluster_ips": ["None"], "ipFamilies": ["IPv6"]}, ["fd00::1"]),
    ],
)
def test_endpoints_have_the_families_of_the_service(service: dict[str, Any], expected: list[str]) -> None:
    assert list(from_pods(web_pod("p", "10.0.0.1", "fd00::1"), **service)) == expected


def test_zone_comes_from_the_node_and_host_name_from_the_subdomain() -> None:
    node = kubernetes.node("node-1", labels={"topology.kubernetes.io/zone": "eu-1a"})
    named = web_pod("p", "10.0.0.1")
    named["spec"] |= {"hostname": "h-0", "subdomain": "web"}
    endpoint = from_pods(node, named)["10.0.0.1"]
    assert (endpoint.zone, endpoint.node, endpoint.hostname) == ("eu-1a", "node-1", "h-0")


def test_without_selector_and_slices_there_are_no_endpoints() -> None:
    assert endpoints_of(state_of(kubernetes.service("web"), web_pod("p", "10.0.0.1")), NAME) == ([], [])


@pytest.mark.parametrize("manager", MESH_SLICE_MANAGERS)
def test_slices_win_over_the_selector_and_imported_ones_do_not_count(manager: str) -> None:
    service = kubernetes.service("web", selector={"app": "web"})
    endpoints = [{"addresses": ["10.0.0.9"]}]
    imported = kubernetes.endpoint_slice("m", "web", endpoints, labels={MANAGED_BY_LABEL: manager})
    pod = web_pod("p", "10.0.0.1")
    assert [each.ip for each in endpoints_of(state_of(service, pod, imported), NAME)[0]] == ["10.0.0.1"]
    own = kubernetes.endpoint_slice("own", "web", endpoints)
    assert [each.ip for each in endpoints_of(state_of(service, pod, imported, own), NAME)[0]] == ["10.0.0.9"]


def test_the_later_slice_by_name_says_what_holds_for_an_address() -> None:
    first = kubernetes.endpoint_slice("a", "web", [{"addresses": ["10.0.0.1"]}], ports=[{"name": "x", "port": 1}])
    second = kubernetes.endpoint_slice("b", "web", [{"addresses": ["10.0.0.1"]}], ports=[{"name": "y", "port": 2}])
    found, _ = endpoints_of(state_of(second, first, kubernetes.service("web")), NAME)
    assert [endpoint.ports for endpoint in found] == [{"y": L4Addr("TCP", 2)}]


def test_what_is_left_out_of_a_slice_is_named() -> None:
    bad = kubernetes.endpoint_slice("bad", "web", [{"addresses": ["10.0.0.1", "10.0.0.256"]}])
    fqdn = kubernetes.endpoint_slice("fqdn", "web", [{"addresses": ["a.example"]}], address_type="FQDN")
    found, odd = endpoints_of(state_of(kubernetes.service("web"), bad, fqdn), NAME)
    assert [endpoint.ip for endpoint in found] == ["10.0.0.1"]
    assert odd == [
        "slice bad: '10.0.0.256' is not an IP address: left out",
        "slice fqdn has addressType 'FQDN': left out",
    ]


def test_slice_ports_without_number_or_of_unknown_protocol_are_left_out() -> None:
    ports: list[kubernetes.Document] = [
        {"name": "a"},
        {"name": "b", "port": 1, "protocol": "ICMP"},
        {"name": "c", "port": 2},
    ]
    each = kubernetes.endpoint_slice("a", "web", [{"addresses": ["10.0.0.1"]}], ports=ports)
    found, _ = endpoints_of(state_of(each, kubernetes.service("web")), NAME)
    assert found[0].ports == {"c": L4Addr("TCP", 2)}


@pytest.mark.parametrize(
    ("conditions", "exported", "state"),
    [
        ({}, True, "active"),
        ({"ready": False}, True, "not-ready"),
        ({"serving": False}, True, "active"),
        ({"ready": False, "serving": False}, False, "not-ready"),
        ({"ready": False, "serving": True, "terminating": True}, True, "terminating"),
        ({"ready": False, "terminating": True}, True, "terminating"),
        ({"ready": False, "serving": False, "terminating": True}, False, "not-ready"),
    ],
)
def test_conditions_that_are_not_said(conditions: dict[str, bool], *, exported: bool, state: str) -> None:
    said = {name: conditions.get(name) for name in ("ready", "serving", "terminating")}
    endpoint = Endpoint(
        ip="10.0.0.1",
        ports={},
        ready=said["ready"],
        serving=said["serving"],
        terminating=said["terminating"],
    )
    assert (endpoint.is_exported, endpoint.state) == (exported, state)


def test_addresses_are_canonical() -> None:
    assert canonical_ip("FD00:0::1") == "fd00::1"
    assert canonical_ip("010.0.0.1") == ""
    assert canonical_ip("") == ""


@pytest.mark.parametrize(("protocol", "port"), [("TCP", 0), ("TCP", 65536), ("TCP", -1), ("ICMP", 1), ("", 1)])
def test_ports_that_cannot_be_carried(protocol: str, port: int) -> None:
    assert not is_usable(protocol, port)


@given(st.ip_addresses().map(str) | st.text(alphabet="0123456789.:af%", max_size=16))
def test_addresses_are_those_of_the_library(text: str) -> None:
    try:
        expected = str(ip_address(text))
    except ValueError:
        expected = ""
    assert canonical_ip(text) == ("" if "%" in text else expected)
