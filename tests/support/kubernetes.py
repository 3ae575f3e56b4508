"""Kubernetes objects as documents, with only what a test cares about spelled out."""

from collections.abc import Mapping, Sequence
from typing import Any

Document = dict[str, Any]

GLOBAL = {"service.cilium.io/global": "true"}
GLOBAL_NOT_SHARED = GLOBAL | {"service.cilium.io/shared": "false"}


def namespace(name: str, *, labels: Mapping[str, str] | None = None, is_global: bool | None = None) -> Document:
    annotations = {} if is_global is None else {"clustermesh.cilium.io/global": str(is_global).lower()}
    metadata = {"name": name, "labels": dict(labels or {}), "annotations": annotations}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def node(
    name: str,
    address: str = "172.18.1.11",
    *,
    pod_cidrs: Sequence[str] = ("10.0.0.0/24",),
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Document:
    addresses = [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": dict(labels or {}), "annotations": dict(annotations or {})},
        "spec": {"podCIDR": pod_cidrs[0] if pod_cidrs else "", "podCIDRs": list(pod_cidrs)},
        "status": {"addresses": addresses},
    }


def pod(
    name: str,
    *ips: str,
    namespace: str = "default",
    labels: Mapping[str, str] | None = None,
    ready: bool = True,
    terminating: bool = False,
    phase: str = "Running",
    node: str = "node-1",
    host_ip: str = "172.18.1.11",
    host_network: bool = False,
    service_account: str = "default",
    ports: Sequence[Document] = (),
) -> Document:
    metadata: Document = {"name": name, "namespace": namespace, "labels": dict(labels or {})}
    if terminating:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    spec = {
        "nodeName": node,
        "serviceAccountName": service_account,
        "hostNetwork": host_network,
        "containers": [{"name": "main", "ports": list(ports)}],
    }
    status = {
        "phase": phase,
        "podIP": ips[0] if ips else "",
        "podIPs": [{"ip": ip} for ip in ips],
        "hostIP": host_ip,
        "conditions": [{"type": "Ready", "status": str(ready)}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


def service(
    name: str,
    *cluster_ips: str,
    namespace: str = "default",
    selector: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] = GLOBAL,
    labels: Mapping[str, str] | None = None,
    ports: Sequence[Document] = ({"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080},),
    **spec: object,
) -> Document:
    metadata = {"name": name, "namespace": namespace, "labels": dict(labels or {}), "annotations": dict(annotations)}
    addresses = {"clusterIP": cluster_ips[0], "clusterIPs": list(cluster_ips)} if cluster_ips else {}
    body = {**addresses, "selector": dict(selector or {}), "ports": list(ports), **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": body}


def policy(name: str, *, namespace: str = "default", **rules: object) -> Document:
    """A NetworkPolicy; `rules` are fields of its spec."""
    metadata = {"name": name, "namespace": namespace}
    spec = {"podSelector": {}, **rules}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def cilium_policy(name: str, *, namespace: str = "", specs: Sequence[Document] = (), **rules: object) -> Document:
    """A CiliumNetworkPolicy, or the clusterwide kind without a namespace; `rules` are fields of its spec."""
    kind = "CiliumNetworkPolicy" if namespace else "CiliumClusterwideNetworkPolicy"
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    body = {"specs": list(specs)} if specs else {"spec": {"endpointSelector": {}, **rules}}
    return {"apiVersion": "cilium.io/v2", "kind": kind, "metadata": metadata, **body}


def endpoint_slice(
    name: str,
    service: str,
    endpoints: Sequence[Document],
    *,
    namespace: str = "default",
    ports: Sequence[Document] = ({"name": "http", "port": 8080, "protocol": "TCP"},),
    address_type: str = "IPv4",
    labels: Mapping[str, str] | None = None,
) -> Document:
    all_labels = {"kubernetes.io/service-name": service, **(labels or {})}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": namespace, "labels": all_labels},
        "addressType": address_type,
        "endpoints": list(endpoints),
        "ports": list(ports),
    }
