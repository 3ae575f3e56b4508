"""What kube-proxy does: ClusterIP → the cluster's own ready endpoints, by nftables. Pure: objects in, commands out.

Global services are in it too: kube-proxy knows nothing of the mesh, and the mesh has to be faster than it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from meshd.testbed.objects import is_ready

TABLE = "kube-proxy"
_HEADER = (
    "add table ip kube-proxy",
    "add chain ip kube-proxy services",
    "add chain ip kube-proxy no-endpoints",
    "add chain ip kube-proxy prerouting { type nat hook prerouting priority dstnat; policy accept; }",
    "add chain ip kube-proxy output { type nat hook output priority -100; policy accept; }",
    "add chain ip kube-proxy forward { type filter hook forward priority filter; policy accept; }",
    "add chain ip kube-proxy local-output { type filter hook output priority filter; policy accept; }",
    *(
        f"flush chain ip kube-proxy {chain}"
        for chain in ("services", "no-endpoints", "prerouting", "output", "forward", "local-output")
    ),
    "add rule ip kube-proxy prerouting jump services",
    "add rule ip kube-proxy output jump services",
    "add rule ip kube-proxy forward ct state new jump no-endpoints",
    "add rule ip kube-proxy local-output ct state new jump no-endpoints",
)


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A port of a service with the ready endpoints of the own cluster behind it."""

    service: str
    cluster_ip: str
    protocol: str
    port: int
    endpoints: tuple[tuple[str, int], ...]

    @property
    def counter(self) -> str:
        """Name of the counter of packets that began a connection through this rule."""
        return f"{self.service.replace('/', '_')}_{self.protocol}_{self.port}"


def service_ports(services: Iterable[Mapping[str, Any]], pods: Iterable[Mapping[str, Any]]) -> list[ServicePort]:
    """Resolves selectors and named target ports; services without a ClusterIP or a selector are left out."""
    candidates = [pod for pod in pods if is_ready(pod)]
    found = []
    for service in services:
        spec = service["spec"]
        if spec.get("clusterIP") in (None, "None") or not spec.get("selector"):
            continue
        namespace = service["metadata"]["namespace"]
        chosen = [
            pod
            for pod in candidates
            if pod["metadata"]["namespace"] == namespace
            and spec["selector"].items() <= pod["metadata"].get("labels", {}).items()
        ]
        for port in spec["ports"]:
            endpoints = ((pod["status"]["podIP"], _target_port(port, pod)) for pod in chosen)
            found.append(
                ServicePort(
                    service=f"{namespace}/{service['metadata']['name']}",
                    cluster_ip=spec["clusterIP"],
                    protocol=port.get("protocol", "TCP").lower(),
                    port=port["port"],
                    endpoints=tuple(sorted((ip, number) for ip, number in endpoints if number is not None)),
                )
            )
    return sorted(found, key=lambda port: (port.service, port.port))


def _target_port(port: Mapping[str, Any], pod: Mapping[str, Any]) -> int | None:
    target = port.get("targetPort", port["port"])
    if isinstance(target, int):
        return target
    for container in pod["spec"]["containers"]:
        for declared in container.get("ports", ()):
            if declared.get("name") == target:
                return int(declared["containerPort"])
    return None


def ruleset(ports: Iterable[ServicePort]) -> str:
    """nftables commands that make the rules exactly these, in one transaction; counters live on."""
    lines = list(_HEADER)
    for port in ports:
        match = f"ip daddr {port.cluster_ip} {port.protocol} dport {port.port}"
        lines.append(f"add counter ip {TABLE} {port.counter}")
        if not port.endpoints:
            lines.append(f"add rule ip {TABLE} no-endpoints {match} counter reject")
            continue
        choices = ", ".join(f"{i} : {ip} . {number}" for i, (ip, number) in enumerate(port.endpoints))
        target = f"numgen random mod {len(port.endpoints)} map {{ {choices} }}"
        lines.append(f"add rule ip {TABLE} services {match} counter name {port.counter} dnat ip to {target}")
    return "\n".join(lines)
