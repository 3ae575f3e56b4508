"""Runs a cluster's pods: places them, wires them, starts their containers, writes their status."""

from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from meshd.testbed import podspec, process
from meshd.testbed.layout import Layout
from meshd.testbed.objects import Object, Objects
from meshd.testbed.plan import Cluster, Node
from meshd.testbed.process import Place, Record
from meshd.testbed.scheduler import Placement, node_labels, place
from meshd.testbed.underlay import ensure_pod, remove_pod

READY_DEADLINE_S = 15.0


class Kubelet:
    """The kubelets and the scheduler of one cluster."""

    def __init__(self, layout: Layout, cluster: Cluster, cgroups: Path) -> None:
        self.layout = layout
        self.cluster = cluster
        self.objects = Objects(layout.objects(cluster.name))
        self.config_maps = Objects(layout.config(cluster.name))
        self._cgroups = cgroups

    def register_nodes(self) -> None:
        """Writes the Node objects, as kubelets do at their start."""
        for node in self.cluster.nodes:
            self.objects.write(_node_object(node))

    def prepare(self, manifest: Object) -> Object:
        """Places a pod, makes its namespace and starts its containers where they do not run: all but telling anybody.

        Returns the object as it will be shown, not ready. Raises ConfigError, NetworkError, OSError.
        """
        pod = self._running(manifest) or self._placed(manifest)
        node = self.cluster.node(pod["spec"]["nodeName"])
        ensure_pod(
            self.namespace(pod),
            self.layout.node(self.cluster.name, node.name),
            node,
            IPv4Address(pod["status"]["podIP"]),
        )
        for command in self._commands(pod):
            name = self._process_name(pod, command.container)
            record = process.load(self.layout.processes, name)
            if record is None or not record.alive:
                self._start(pod, command)
        return pod

    def wait_ready(self, pod: Object) -> None:
        """Waits until the containers listen on the ports they declare. Raises StartError."""
        for command in self._commands(pod):
            name = self._process_name(pod, command.container)
            record = process.load(self.layout.processes, name)
            assert record is not None, name  # noqa: S101 — prepare() wrote it
            process.wait_ready(
                record,
                lambda record=record, ports=command.ports: all(process.listens(record.pid, port) for port in ports),  # type: ignore[misc]
                log=self.layout.log(name),
                deadline_s=READY_DEADLINE_S,
            )

    def show(self, pod: Object, *, ready: bool) -> Object:
        """Writes the pod with this readiness; returns what was written."""
        status = pod["status"]
        shown = podspec.with_status(
            pod, node=pod["spec"]["nodeName"], host_ip=status["hostIP"], pod_ip=status["podIP"], ready=ready
        )
        self.objects.write(shown)
        return shown

    def remove(self, pod: Object) -> None:
        """Takes the pod out of the objects, ends its processes and removes its namespace."""
        self.objects.delete(pod)
        for record in self.records(pod):
            process.stop(record, self.layout.processes, grace_s=1.0)
        remove_pod(self.namespace(pod), self.layout.node(self.cluster.name, pod["spec"]["nodeName"]))

    def records(self, pod: Object) -> list[Record]:
        """The records of the pod's containers."""
        names = (self._process_name(pod, container["name"]) for container in pod["spec"]["containers"])
        return [record for record in (process.load(self.layout.processes, name) for name in names) if record]

    def namespace(self, pod: Object) -> str:
        """Name of the pod's network namespace."""
        return self.layout.pod(self.cluster.name, pod["metadata"]["namespace"], pod["metadata"]["name"])

    def place_of(self, pod: Object) -> Place:
        """The pod's network namespace and its node's cgroup."""
        return Place(self.namespace(pod), self._cgroups / f"{self.cluster.name}-{pod['spec']['nodeName']}")

    def _running(self, manifest: Object) -> Object | None:
        metadata = manifest["metadata"]
        try:
            return self.objects.get("Pod", metadata["name"], metadata["namespace"])
        except KeyError:
            return None

    def _placed(self, manifest: Object) -> Object:
        taken = (IPv4Address(pod["status"]["podIP"]) for pod in self.objects.list("Pod"))
        placement: Placement = place(manifest, self.cluster, taken)
        return podspec.with_status(
            manifest,
            node=placement.node.name,
            host_ip=str(placement.node.address),
            pod_ip=str(placement.address),
            ready=False,
        )

    def _commands(self, pod: Object) -> list[podspec.Command]:
        namespace = pod["metadata"]["namespace"]
        config_maps = {
            obj["metadata"]["name"]: obj
            for obj in self.config_maps.list("ConfigMap")
            if obj["metadata"]["namespace"] == namespace
        }
        return podspec.commands(pod, config_maps)

    def _start(self, pod: Object, command: podspec.Command) -> None:
        name = self._process_name(pod, command.container)
        process.start(
            name,
            command.argv,
            self.place_of(pod),
            records=self.layout.processes,
            log=self.layout.log(name),
            env=command.env,
        )

    def _process_name(self, pod: Object, container: str) -> str:
        return f"{self.cluster.name}.pod.{pod['metadata']['namespace']}.{pod['metadata']['name']}.{container}"


def _node_object(node: Node) -> dict[str, Any]:
    cidr = str(node.pod_cidr)
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name, "labels": node_labels(node)},
        "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": str(node.address)},
                {"type": "Hostname", "address": node.name},
            ],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
