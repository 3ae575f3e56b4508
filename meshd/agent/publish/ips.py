"""A Pod's addresses as other clusters see them: on which node, with which identity."""

from msgspec import UNSET

from identity.labels import identity_labels
from meshd.agent.endpoints import canonical_ip, is_usable
from meshd.agent.objects import Namespace, Pod
from meshd.agent.publish.scope import Scope
from wire.labels import format_labels
from wire.records import IP, NamedPort


def own_addresses(pod: Pod) -> tuple[list[str], list[str]]:
    """The addresses that mean this pod and nothing else (none if it uses its node's, or has ended), and what is odd."""
    if pod.spec.host_network or pod.is_finished:
        return [], []
    addresses = [(text, canonical_ip(text)) for text in pod.addresses]
    odd = [f"podIP {text!r} is not an IP address: left out" for text, ip in addresses if not ip]
    if pod.status.host_ip and not canonical_ip(pod.status.host_ip):
        odd.append(f"hostIP {pod.status.host_ip!r} is not an IP address: nobody can reach the pod through the tunnel")
    for port in pod.ports:
        if port.name and not is_usable(port.protocol, port.container_port):
            odd.append(f"port {port.name!r}: {port.protocol} {port.container_port} cannot be carried: left out")
    return [ip for _, ip in addresses if ip], odd


def service_account(pod: Pod) -> str:
    return pod.spec.service_account_name or "default"


def label_text(pod: Pod, namespace: str, known: Namespace | None, scope: Scope) -> str:
    """The labels of the pod's identity as canonical text: equal texts share a number."""
    return format_labels(
        identity_labels(
            pod_labels=pod.metadata.labels,
            namespace=namespace,
            namespace_labels=known.metadata.labels if known else {},
            service_account=service_account(pod),
            cluster=scope.cluster,
            keep=scope.keep_label,
        )
    )


def ip_record(pod: Pod, namespace: str, ip: str, identity: int) -> IP:
    """The record of one of the pod's addresses."""
    ports = sorted(
        {
            (port.name, port.container_port, port.protocol)
            for port in pod.ports
            if port.name and is_usable(port.protocol, port.container_port)
        }
    )
    return IP(
        ip=ip,
        host_ip=canonical_ip(pod.status.host_ip),
        id=identity,
        namespace=namespace,
        pod_name=pod.metadata.name,
        service_account=service_account(pod),
        named_ports=[NamedPort(*port) for port in ports] or UNSET,
    )
