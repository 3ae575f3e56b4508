"""The cluster of `bench agent`: nodes, pods, global services and their slices, as large as a real server tells them."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.support import kubernetes
from tests.support.kubernetes import Document

#: What a pod of a real cluster says besides, which the agent has to skip: some 3 kB.
FILLER = {
    "env": [{"name": f"SETTING_{n}", "value": "x" * 40} for n in range(12)],
    "image": "registry.example/team/program:v1.2.3",
    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
    "volumeMounts": [{"name": "kube-api-access", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
    "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10},
}
CONDITIONS = [
    {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": "2026-01-01T00:00:00Z"}
    for kind in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
]


@dataclass(frozen=True, slots=True)
class Load:
    """How large the cluster is. Each workload is a label set, so an identity, and has a global service."""

    nodes: int
    pods: int
    workloads: int

    def namespace_of(self, workload: int) -> str:
        return f"team-{workload % 50}"

    def documents(self) -> Iterator[Document]:
        for n in range(50):
            yield kubernetes.namespace(f"team-{n}", labels={"team": str(n)})
        for n in range(self.nodes):
            cidr = f"10.{n >> 8}.{n & 255}.0/24"
            yield kubernetes.node(f"node-{n}", f"172.18.{n >> 8}.{n & 255}", pod_cidrs=[cidr])
        for n in range(self.workloads):
            yield kubernetes.service(
                f"web-{n}",
                f"30.{n >> 16}.{n >> 8 & 255}.{n & 255}",
                namespace=self.namespace_of(n),
                selector={"app": f"web-{n}"},
            )
            endpoints = [
                {"addresses": [address(pod)], "nodeName": f"node-{pod % self.nodes}", "conditions": {"ready": True}}
                for pod in range(n, self.pods, self.workloads)
            ]
            yield kubernetes.endpoint_slice(f"web-{n}-1", f"web-{n}", endpoints, namespace=self.namespace_of(n))
        for n in range(self.pods):
            yield self.pod(n)

    def pod(self, number: int, *, round: int = 0) -> Document:
        """Another `round` is another address of the same pod."""
        workload, node = number % self.workloads, number % self.nodes
        document = kubernetes.pod(
            f"web-{workload}-7c9d8b6f5-{number:05x}",
            address(number, round),
            namespace=self.namespace_of(workload),
            labels={"app": f"web-{workload}", "version": "v1", "pod-template-hash": "7c9d8b6f5"},
            node=f"node-{node}",
            host_ip=f"172.18.{node >> 8}.{node & 255}",
            ports=[{"name": "http", "containerPort": 8080}],
        )
        document["spec"]["containers"][0] |= FILLER
        document["status"]["conditions"] = CONDITIONS
        return document


def address(pod: int, round: int = 0) -> str:
    return f"{10 + round}.{pod >> 16}.{pod >> 8 & 255}.{pod & 255}"
