"""A global Service as this cluster's own daemons see it, so that none of them needs Kubernetes."""

from collections.abc import Sequence

from globalsvc.annotations import is_read
from meshd.agent.endpoints import Endpoint, is_usable
from meshd.agent.objects import Service
from meshd.agent.publish.services import frontend_ips
from wire.local import LocalBackend, LocalService, ServicePort


def local_service(service: Service, namespace: str, endpoints: Sequence[Endpoint]) -> LocalService:
    """The record of a service that is global, shared or not, or should perhaps be; with every backend and its state."""
    annotations = sorted(service.metadata.annotations.items())
    return LocalService(
        namespace=namespace,
        name=service.metadata.name,
        annotations={key: value for key, value in annotations if is_read(key)},
        cluster_ips=frontend_ips(service),
        ports=[
            ServicePort(name=port.name, protocol=port.protocol, port=port.port)
            for port in service.spec.ports
            if is_usable(port.protocol, port.port)
        ],
        headless=service.is_headless,
        session_affinity_timeout_s=_affinity_timeout_s(service),
        internal_traffic_policy=service.spec.internal_traffic_policy,
        external_traffic_policy=service.spec.external_traffic_policy,
        backends=[
            LocalBackend(
                ip=endpoint.ip,
                ports=endpoint.ports,
                state=endpoint.state,
                node=endpoint.node,
                zone=endpoint.zone,
                for_zones=list(endpoint.for_zones),
            )
            for endpoint in endpoints
        ],
    )


def _affinity_timeout_s(service: Service) -> int:
    if service.spec.session_affinity != "ClientIP":
        return 0
    return service.spec.session_affinity_config.client_ip.timeout_seconds
