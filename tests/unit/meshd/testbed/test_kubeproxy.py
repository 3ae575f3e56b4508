from typing import Any

from meshd.testbed.kubeproxy import ServicePort, ruleset, service_ports
from meshd.testbed.podspec import with_status

SERVICE = {
    "kind": "Service",
    "metadata": {"name": "shop", "namespace": "default"},
    "spec": {
        "clusterIP": "30.1.0.9",
        "selector": {"name": "shop"},
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": "http"}],
    },
}


def pod(name: str, ip: str, *, ready: bool = True, label: str = "shop", namespace: str = "default") -> dict[str, Any]:
    ports = [{"name": "http", "containerPort": 8080}]
    spec = {"containers": [{"name": "server", "ports": ports}]}
    metadata = {"name": name, "namespace": namespace, "labels": {"name": label}}
    return with_status(
        {"metadata": metadata, "spec": spec}, node="node1", host_ip="172.18.1.11", pod_ip=ip, ready=ready
    )


def test_only_ready_selected_pods_of_the_namespace_are_endpoints() -> None:
    pods = [
        pod("b", "10.0.0.2"),
        pod("a", "10.0.0.1"),
        pod("sick", "10.0.0.3", ready=False),
        pod("other", "10.0.0.4", label="other"),
        pod("far", "10.0.0.5", namespace="far"),
    ]
    [port] = service_ports([SERVICE], pods)
    assert port == ServicePort("default/shop", "30.1.0.9", "tcp", 80, (("10.0.0.1", 8080), ("10.0.0.2", 8080)))


def test_a_pod_being_deleted_is_no_endpoint() -> None:
    leaving = pod("a", "10.0.0.1")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert service_ports([SERVICE], [leaving])[0].endpoints == ()


def test_headless_and_selectorless_services_are_left_out() -> None:
    headless = {**SERVICE, "spec": {**SERVICE["spec"], "clusterIP": "None"}}  # type: ignore[dict-item]
    bare = {**SERVICE, "spec": {"clusterIP": "30.1.0.8", "ports": []}}
    assert service_ports([headless, bare], []) == []


def test_rules_balance_or_reject() -> None:
    both = ServicePort("default/shop", "30.1.0.9", "tcp", 80, (("10.0.0.1", 8080), ("10.0.0.2", 8080)))
    none = ServicePort("default/void", "30.1.0.7", "udp", 53, ())
    text = ruleset([both, none])
    assert "numgen random mod 2 map { 0 : 10.0.0.1 . 8080, 1 : 10.0.0.2 . 8080 }" in text
    assert "no-endpoints ip daddr 30.1.0.7 udp dport 53 counter reject" in text
    assert "flush table" not in text, "the counters must live on"
