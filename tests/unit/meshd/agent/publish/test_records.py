"""One record each: nodes, services, local services, ips."""

from typing import Any

import msgspec
import pytest

from meshd.agent.decoding import decode_object, kind_of
from meshd.agent.endpoints import Endpoint, endpoints_of
from meshd.agent.objects import Namespace, Node, ObjectKind, Pod, Service
from meshd.agent.publish.ips import ip_record, label_text, own_addresses
from meshd.agent.publish.local import local_service
from meshd.agent.publish.nodes import node_record
from meshd.agent.publish.scope import Scope
from meshd.agent.publish.services import frontend_ips, read_annotations, service_record
from meshd.agent.state import Changes, LocalState
from tests.support import kubernetes
from wire.codec import encode
from wire.records import CIDR, L4Addr, NodeAddress

SCOPE = Scope(cluster="c1", cluster_id=1)


def node_of(document: dict[str, Any]) -> Node:
    _, decoded = decode_object(ObjectKind.NODE, document)
    assert isinstance(decoded, Node)
    return decoded


def pod_of(document: dict[str, Any]) -> Pod:
    _, decoded = decode_object(ObjectKind.POD, document)
    assert isinstance(decoded, Pod)
    return decoded


def service_of(document: dict[str, Any]) -> Service:
    _, decoded = decode_object(ObjectKind.SERVICE, document)
    assert isinstance(decoded, Service)
    return decoded


def as_json(record: msgspec.Struct) -> Any:
    return msgspec.json.decode(encode(record))


class TestNodes:
    def test_is_written_as_the_other_writers_write_it(self) -> None:
        document = kubernetes.node(
            "n1",
            pod_cidrs=["10.0.0.0/24", "fd00:10:1::/64", "10.0.9.0/24"],
            labels={"zone": "a"},
            annotations={"network.cilium.io/wg-pub-key": "KEY", "secret": "x"},
        )
        record, problems = node_record(node_of(document), SCOPE)
        assert problems == []
        assert as_json(record) == {
            "Name": "n1",
            "Cluster": "c1",
            "IPAddresses": [{"Type": "InternalIP", "IP": "172.18.1.11"}],
            "IPv4AllocCIDR": {"IP": "10.0.0.0", "Mask": "////AA=="},
            "IPv4SecondaryAllocCIDRs": [{"IP": "10.0.9.0", "Mask": "////AA=="}],
            "IPv6AllocCIDR": {"IP": "fd00:10:1::", "Mask": "//////////8AAAAAAAAAAA=="},
            "IPv6SecondaryAllocCIDRs": None,
            "IPv4HealthIP": "",
            "IPv6HealthIP": "",
            "IPv4IngressIP": "",
            "IPv6IngressIP": "",
            "ClusterID": 1,
            "Source": "custom-resource",
            "EncryptionKey": 0,
            "Labels": {"zone": "a"},
            "Annotations": {"meshd.io/tunnel": "vxlan:8473", "network.cilium.io/wg-pub-key": "KEY"},
            "WireguardPubKey": "KEY",
            "BootID": "",
        }

    def test_a_node_may_announce_a_tunnel_of_its_own(self) -> None:
        document = kubernetes.node("n1", annotations={"meshd.io/tunnel": "geneve:6081"})
        record, _ = node_record(node_of(document), SCOPE)
        assert record.annotations == {"meshd.io/tunnel": "geneve:6081"}

    def test_no_tunnel_is_announced_if_none_is_set(self) -> None:
        record, _ = node_record(node_of(kubernetes.node("n1")), Scope(cluster="c1", cluster_id=1, tunnel=""))
        assert record.annotations is None

    def test_what_is_left_out_is_named(self) -> None:
        document = kubernetes.node("n1", "172.18.1.300", pod_cidrs=["10.0.0.0/24", "10.0.0.0/33"])
        record, problems = node_record(node_of(document), SCOPE)
        assert record.addresses is None
        assert record.ipv4_cidr == CIDR("10.0.0.0", "////AA==")
        assert problems == [
            "PodCIDR '10.0.0.0/33' is not a prefix: left out",
            "InternalIP '172.18.1.300' is not an IP address: left out",
            "status.addresses has no InternalIP or ExternalIP: no cluster can send to this node",
        ]

    def test_the_single_pod_cidr_counts_if_there_is_no_list(self) -> None:
        document = kubernetes.node("n1") | {"spec": {"podCIDR": "10.0.0.0/24"}}
        record, _ = node_record(node_of(document), SCOPE)
        assert record.ipv4_cidr == CIDR("10.0.0.0", "////AA==")
        assert record.addresses == [NodeAddress("InternalIP", "172.18.1.11")]


class TestServices:
    def test_external_names_are_never_global(self) -> None:
        annotations = read_annotations(service_of(kubernetes.service("ext", type="ExternalName")))
        assert not annotations.is_global
        assert "ExternalName" in annotations.problems[0]

    def test_frontends_are_cluster_ips_that_are_addresses(self) -> None:
        service = service_of(kubernetes.service("s", "30.1.1.2", "FD00::1", "30.1.1.999"))
        assert frontend_ips(service) == ["30.1.1.2", "fd00::1"]

    def test_zones_and_host_names_stand_only_where_there_are_any(self) -> None:
        plain = Endpoint(ip="10.0.0.1", ports={"http": L4Addr("TCP", 8080)})
        record = as_json(service_record(service_of(kubernetes.service("s")), "default", [plain], SCOPE))
        assert "zones" not in record
        assert "hostnames" not in record
        rich = Endpoint(ip="10.0.0.1", ports={}, zone="eu-1a", hostname="h-0", for_zones=("eu-1b",))
        record = as_json(service_record(service_of(kubernetes.service("s")), "default", [rich], SCOPE))
        assert record["zones"] == {"10.0.0.1": {"zone": "eu-1a", "forZones": [{"name": "eu-1b"}]}}
        assert record["hostnames"] == {"10.0.0.1": "h-0"}

    def test_the_order_in_the_object_does_not_show(self) -> None:
        ports = [{"name": "b", "port": 2}, {"name": "a", "port": 1}]
        labels = {"x": "1", "y": "2"}
        there = service_of(kubernetes.service("s", "30.1.1.1", "30.1.1.0", ports=ports, labels=labels))
        back = service_of(
            kubernetes.service("s", "30.1.1.0", "30.1.1.1", ports=ports[::-1], labels=dict(reversed(labels.items())))
        )
        assert encode(service_record(there, "default", [], SCOPE)) == encode(service_record(back, "default", [], SCOPE))


class TestLocalServices:
    def test_has_every_backend_with_its_state(self) -> None:
        documents = [
            kubernetes.service(
                "web",
                "30.1.1.1",
                selector={"app": "web"},
                annotations={"io.cilium/global-service": "true", "io.cilium/service-affinity": "local", "team": "x"},
                sessionAffinity="ClientIP",
                sessionAffinityConfig={"clientIP": {"timeoutSeconds": 60}},
                internalTrafficPolicy="Local",
            ),
            kubernetes.pod("a", "10.0.0.1", labels={"app": "web"}),
            kubernetes.pod("b", "10.0.0.2", labels={"app": "web"}, ready=False),
            kubernetes.pod("c", "10.0.0.3", labels={"app": "web"}, terminating=True, node="node-2"),
        ]
        state = LocalState()
        state.apply(Changes(dict(decode_object(kind, each) for each in documents if (kind := kind_of(each)))))
        name = ("default", "web")
        record = as_json(local_service(state.services[name], "default", endpoints_of(state, name)[0]))
        ports = {"http": {"Protocol": "TCP", "Port": 8080}}
        assert record == {
            "namespace": "default",
            "name": "web",
            "annotations": {"io.cilium/global-service": "true", "io.cilium/service-affinity": "local"},
            "cluster_ips": ["30.1.1.1"],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
            "headless": False,
            "session_affinity_timeout_s": 60,
            "internal_traffic_policy": "Local",
            "external_traffic_policy": "Cluster",
            "backends": [
                {"ip": "10.0.0.1", "ports": ports, "state": "active", "node": "node-1", "zone": "", "for_zones": []},
                {"ip": "10.0.0.2", "ports": ports, "state": "not-ready", "node": "node-1", "zone": "", "for_zones": []},
                {
                    "ip": "10.0.0.3",
                    "ports": ports,
                    "state": "terminating",
                    "node": "node-2",
                    "zone": "",
                    "for_zones": [],
                },
            ],
        }

    def test_session_affinity_is_off_by_default(self) -> None:
        assert local_service(service_of(kubernetes.service("s")), "default", []).session_affinity_timeout_s == 0
        service = service_of(kubernetes.service("s", sessionAffinity="ClientIP"))
        assert local_service(service, "default", []).session_affinity_timeout_s == 10800


class TestIPs:
    def test_is_written_as_the_other_writers_write_it(self) -> None:
        ports: list[kubernetes.Document] = [
            {"name": "http", "containerPort": 8080},
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            {"containerPort": 1},
        ]
        pod = pod_of(kubernetes.pod("p", "10.0.0.1", service_account="web", ports=ports))
        assert as_json(ip_record(pod, "shop", "10.0.0.1", 66001)) == {
            "IP": "10.0.0.1",
            "Mask": None,
            "HostIP": "172.18.1.11",
            "ID": 66001,
            "Key": 0,
            "Metadata": "",
            "K8sNamespace": "shop",
            "K8sPodName": "p",
            "K8sServiceAccount": "web",
            "NamedPorts": [
                {"Name": "dns", "Port": 53, "Protocol": "UDP"},
                {"Name": "http", "Port": 8080, "Protocol": "TCP"},
            ],
        }

    def test_named_ports_stand_only_where_there_are_any_and_a_bad_host_is_none(self) -> None:
        pod = pod_of(kubernetes.pod("p", "10.0.0.1", host_ip="nowhere"))
        record = as_json(ip_record(pod, "shop", "10.0.0.1", 66001))
        assert "NamedPorts" not in record
        assert record["HostIP"] == ""

    @pytest.mark.parametrize(
        ("pod", "expected"),
        [
            (kubernetes.pod("p", "10.0.0.1", "FD00::1"), ["10.0.0.1", "fd00::1"]),
            (kubernetes.pod("p", "172.18.1.11", host_network=True), []),
            (kubernetes.pod("p", "10.0.0.1", phase="Failed"), []),
            (kubernetes.pod("p", "10.0.0.1", terminating=True), ["10.0.0.1"]),
            (kubernetes.pod("p"), []),
        ],
    )
    def test_own_addresses(self, pod: dict[str, Any], expected: list[str]) -> None:
        assert own_addresses(pod_of(pod)) == (expected, [])

    def test_a_bad_address_is_named(self) -> None:
        addresses, odd = own_addresses(pod_of(kubernetes.pod("p", "10.0.0.1", "10.0.0.1.1")))
        assert addresses == ["10.0.0.1"]
        assert odd == ["podIP '10.0.0.1.1' is not an IP address: left out"]

    def test_labels_of_the_identity(self) -> None:
        labels = {"app": "web", "pod-template-hash": "abc"}
        pod = pod_of(kubernetes.pod("p", "10.0.0.1", labels=labels, service_account=""))
        _, known = decode_object(ObjectKind.NAMESPACE, kubernetes.namespace("shop", labels={"team": "x"}))
        assert isinstance(known, Namespace)
        assert label_text(pod, "shop", known, SCOPE) == (
            "k8s:app=web;k8s:io.cilium.k8s.namespace.labels.team=x;k8s:io.cilium.k8s.policy.cluster=c1;"
            "k8s:io.cilium.k8s.policy.serviceaccount=default;k8s:io.kubernetes.pod.namespace=shop;"
        )
        assert "team" not in label_text(pod, "shop", None, SCOPE)
