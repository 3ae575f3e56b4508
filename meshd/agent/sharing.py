"""Parts that many pods and endpoints have in common, kept once: at 100 000 pods that is most of the memory."""

from collections.abc import Hashable
from typing import Any, TypeVar

from msgspec.structs import replace

from meshd.agent.objects import EndpointSlice, Pod, PodMetadata, PodSpec, PodStatus, SliceEndpoint

T = TypeVar("T", bound=Hashable)

#: Parts that are remembered; after so many different ones it begins anew.
LIMIT = 50_000


class Sharing:
    """`share` gives an equal pod, made of parts that equal pods before it were made of."""

    def __init__(self) -> None:
        self._parts: dict[Any, Any] = {}
        self._label_sets: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}

    def share(self, pod: Pod) -> Pod:
        if len(self._parts) > LIMIT:
            self._parts.clear()
        if len(self._label_sets) > LIMIT:
            self._label_sets.clear()
        same = self._same
        metadata, spec, status = pod.metadata, pod.spec, pod.status
        ips = status.pod_ips
        return Pod(
            metadata=PodMetadata(
                name=metadata.name,
                namespace=same(metadata.namespace),
                labels=self._labels(metadata.labels),
                deletion_timestamp=metadata.deletion_timestamp,
            ),
            spec=PodSpec(
                node_name=same(spec.node_name),
                service_account_name=same(spec.service_account_name),
                host_network=spec.host_network,
                hostname=spec.hostname,
                subdomain=same(spec.subdomain),
                containers=same(spec.containers),
                init_containers=same(spec.init_containers),
            ),
            status=PodStatus(
                phase=same(status.phase),
                pod_ip=ips[0].ip if ips and ips[0].ip == status.pod_ip else status.pod_ip,
                pod_ips=ips,
                host_ip=same(status.host_ip),
                conditions=same(status.conditions),
            ),
        )

    def share_slice(self, endpoint_slice: EndpointSlice) -> EndpointSlice:
        """The same for the endpoints of a slice."""
        same = self._same
        endpoints = tuple(
            SliceEndpoint(
                addresses=endpoint.addresses,
                conditions=same(endpoint.conditions),
                hostname=endpoint.hostname,
                node_name=same(endpoint.node_name),
                zone=same(endpoint.zone),
                hints=same(endpoint.hints),
            )
            for endpoint in endpoint_slice.endpoints
        )
        return replace(endpoint_slice, endpoints=endpoints)

    def _same(self, part: T) -> T:
        known: T = self._parts.setdefault(part, part)
        return known

    def _labels(self, labels: dict[str, str]) -> dict[str, str]:
        return self._label_sets.setdefault(tuple(labels.items()), labels)
