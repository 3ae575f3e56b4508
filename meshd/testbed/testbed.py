"""A whole testbed: up, down, and the verbs that change what runs in it.

Everything is level-triggered: `up` makes what is missing, `down` removes all that carries the tag, however it came
to be there. Whoever changes something holds the lock.
"""

import contextlib
import fcntl
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from meshd.config import ConfigError
from meshd.single import stands
from meshd.testbed import cgroup, kindnet, kubeproxy, netns, process
from meshd.testbed.check import ensure_bpffs
from meshd.testbed.kubelet import Kubelet
from meshd.testbed.layout import BPFFS, ROOT, Layout
from meshd.testbed.objects import Object, check_annotation, check_name, is_ready, read_manifests
from meshd.testbed.parts import Part, parts
from meshd.testbed.plan import CLUSTERS, Cluster
from meshd.testbed.process import StartError
from meshd.testbed.scheduler import IP_ANNOTATION
from meshd.testbed.trust import ensure_certificates, write_peers
from meshd.testbed.underlay import ensure_underlay

MANIFESTS = Path(__file__).parents[2] / "kind-clusters" / "manifests"
DEFAULT_CLUSTERS = ("cluster1", "cluster2")
PART_DEADLINE_S = 90.0
STOP_GRACE_S = 5.0
Progress = Callable[[str], None]


class Testbed:
    """One testbed, by its tag. Methods raise ConfigError, KeyError, StartError, NetworkError and OSError."""

    __test__ = False  # not a test, pytest

    def __init__(self, tag: str, clusters: Sequence[str] | None = None, *, daemon_flags: Sequence[str] = ()) -> None:
        """`clusters`: by default those that stand, or else DEFAULT_CLUSTERS."""
        self.layout = Layout(tag)
        clusters = clusters or self._standing_clusters() or DEFAULT_CLUSTERS
        clusters = list(dict.fromkeys(clusters))
        unknown = [name for name in clusters if name not in CLUSTERS]
        if unknown:
            raise ConfigError(f"unknown cluster {', '.join(unknown)}; the address plan has {', '.join(CLUSTERS)}")
        self.clusters = [CLUSTERS[name] for name in clusters]
        self.cgroups = self.layout.cgroup(cgroup.find_root())
        self.kubelets = {c.name: Kubelet(self.layout, c, self.cgroups) for c in self.clusters}
        self.parts = {part.name: part for part in parts(self.layout, self.clusters, self.cgroups, daemon_flags)}

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the testbed's lock; another command on the same testbed waits."""
        ROOT.mkdir(parents=True, exist_ok=True)
        while True:
            with self.layout.lock.open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not stands(lock.fileno(), self.layout.lock):  # `down` removed it while we waited
                    continue
                yield
                return

    def _standing_clusters(self) -> list[str]:
        return self.layout.complete.read_text().split() if self.layout.complete.exists() else []

    # up and down

    def up(self, *, mesh: bool = True, manifests: Path = MANIFESTS, progress: Progress = lambda _: None) -> None:
        """Makes what is missing. `mesh=False`: nodes, pods and services only, none of meshd's processes."""
        with self.locked():
            standing = self._standing_clusters()
            asked = [cluster.name for cluster in self.clusters]
            if standing and standing != asked:
                raise ConfigError(
                    f"the testbed {self.layout.tag!r} stands with {', '.join(standing)}: take it down first"
                )
            if not standing:
                self._remove()
                progress("underlay: switch, nodes, control planes")
                self._make_underlay()
            progress("pods")
            for cluster in self.clusters:
                self._run_manifests(cluster, manifests)
            if mesh:
                ensure_bpffs(BPFFS)
                ensure_certificates(self.layout, self.clusters)
                write_peers(self.layout, self.clusters)
                self.start_parts(self.parts.values(), progress=progress)

    def runs(self, program: str) -> bool:
        """Has this program been started for the testbed?"""
        return any(record.argv[:1] == (program,) for record in process.load_all(self.layout.processes))

    def down(self) -> None:
        """Ends and removes everything that carries the tag. Nothing there is success."""
        with self.locked():
            self._remove()
            self.layout.lock.unlink(missing_ok=True)

    def _make_underlay(self) -> None:
        for folder in (self.layout.state, self.layout.logs, self.layout.processes, self.layout.run):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for group in ("switch", *self._host_groups()):
            (self.cgroups / group).mkdir(parents=True, exist_ok=True)
        ensure_underlay(self.layout, self.clusters)
        for cluster in self.clusters:
            for node in cluster.nodes:
                netns.nft(kindnet.ruleset(cluster), namespace=self.layout.node(cluster.name, node.name))
        self.layout.complete.write_text(" ".join(cluster.name for cluster in self.clusters))

    def _host_groups(self) -> list[str]:
        return [
            f"{cluster.name}-{host}"
            for cluster in self.clusters
            for host in ("control-plane", *(node.name for node in cluster.nodes))
        ]

    def _run_manifests(self, cluster: Cluster, folder: Path) -> None:
        """What runs already, and the manifests unless they were all run once: what was deleted since stays so."""
        kubelet = self.kubelets[cluster.name]
        kubelet.register_nodes()
        seeded = self.layout.seeded(cluster.name)
        running = [kubelet.prepare(pod) for pod in kubelet.objects.list("Pod")]
        manifests = [] if seeded.exists() else read_manifests([folder / "shared", folder / cluster.name])
        missing = [obj for obj in manifests if not kubelet.objects.has(obj)]
        for obj in missing:
            self._admit(cluster, obj)
        added = [kubelet.prepare(obj) for obj in missing if obj["kind"] == "Pod"]
        for pod in (*running, *added):
            kubelet.wait_ready(pod)
        for pod in added:
            kubelet.show(pod, ready=True)
        seeded.touch()
        self.sync_services(cluster.name)

    def _admit(self, cluster: Cluster, obj: Object) -> None:
        kubelet = self.kubelets[cluster.name]
        if obj["kind"] == "ConfigMap":
            kubelet.config_maps.write(obj)
        elif obj["kind"] != "Pod":
            kubelet.objects.write(obj)

    def _remove(self) -> None:
        records = process.load_all(self.layout.processes)
        for record in records:
            process.send(record, signal.SIGTERM)
        for record in records:
            process.wait_gone(record, deadline_s=STOP_GRACE_S)
        cgroup.remove(self.cgroups)
        netns.remove(netns.names(self.layout.prefix))
        pinned = BPFFS / "meshd"
        for folder in pinned.glob(f"{self.layout.tag}-*"):
            shutil.rmtree(folder)
        if pinned.is_dir() and not any(pinned.iterdir()):
            pinned.rmdir()
        if self.layout.state.exists():
            shutil.rmtree(self.layout.state)

    # the mesh's processes

    def part(self, name: str) -> Part:
        """Raises KeyError with the names that there are."""
        if name not in self.parts:
            raise KeyError(f"no process {name!r}; there are: {', '.join(self.parts)}")
        return self.parts[name]

    def start_parts(self, chosen: Iterable[Part], *, progress: Progress = lambda _: None) -> None:
        """Starts those that do not run, rank by rank, each rank together, and waits until they are ready."""
        ordered = sorted(chosen, key=lambda part: part.rank)
        for rank in sorted({part.rank for part in ordered}):
            started = [(part, self._started(part)) for part in ordered if part.rank == rank]
            progress(", ".join(part.name for part, _ in started))
            with ThreadPoolExecutor(max_workers=len(started)) as threads:
                waits = [threads.submit(self._wait_part, part, record) for part, record in started]
            for wait in waits:
                wait.result()

    def _started(self, part: Part) -> process.Record:
        record = process.load(self.layout.processes, part.record_name)
        if record is not None and record.alive:
            return record
        return process.start(
            part.record_name,
            part.argv,
            part.place,
            records=self.layout.processes,
            log=self.layout.log(part.record_name),
        )

    def _wait_part(self, part: Part, record: process.Record) -> None:
        process.wait_ready(
            record, lambda: part.is_ready(record), log=self.layout.log(part.record_name), deadline_s=PART_DEADLINE_S
        )

    def kill_part(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Sends a signal to a process; waits for its end if the signal is one that ends it."""
        part = self.part(name)
        record = process.load(self.layout.processes, part.record_name)
        if record is None:
            raise KeyError(f"{name} was never started")
        process.send(record, number)
        if number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT) and not process.wait_gone(
            record, deadline_s=STOP_GRACE_S
        ):
            raise StartError(f"{name} (process {record.pid}) does not end {STOP_GRACE_S:.0f} s after {number.name}")

    # the clusters' objects

    def kubelet(self, cluster: str) -> Kubelet:
        """Raises KeyError with the clusters that there are."""
        if cluster not in self.kubelets:
            raise KeyError(f"no cluster {cluster!r}; there are: {', '.join(self.kubelets)}")
        if not self.layout.complete.exists():
            raise KeyError(
                f"the testbed {self.layout.tag!r} is not up; start it with: meshd testbed up --tag {self.layout.tag}"
            )
        return self.kubelets[cluster]

    def pod(self, cluster: str, name: str) -> Object:
        """A running pod by `name` or `namespace/name`. Raises KeyError."""
        namespace, _, plain = name.rpartition("/")
        return self.kubelet(cluster).objects.get("Pod", plain, namespace or "default")

    def set_ready(self, cluster: str, pods: Sequence[str], *, ready: bool) -> None:
        """Changes the written Ready conditions, as if the pods' readiness probes said so."""
        with self.locked():
            for name in pods:
                self.kubelet(cluster).show(self.pod(cluster, name), ready=ready)
            self.sync_services(cluster)

    def annotate(self, cluster: str, kind: str, name: str, key: str, value: str | None) -> None:
        """Sets an annotation of an object, or removes it (None)."""
        check_annotation(key)
        with self.locked():
            objects = self.kubelet(cluster).objects
            namespace, _, plain = name.rpartition("/")
            obj = objects.get(kind, plain, namespace or "default")
            annotations = {**obj["metadata"].get("annotations", {})}
            annotations.pop(key, None)
            if value is not None:
                annotations[key] = value
            objects.write({**obj, "metadata": {**obj["metadata"], "annotations": annotations}})

    def apply(self, cluster: str, obj: Object) -> None:
        """Adds an object; a pod is started and shown ready."""
        with self.locked():
            kubelet = self.kubelet(cluster)
            if obj["kind"] == "Pod":
                pod = kubelet.prepare(obj)
                kubelet.wait_ready(pod)
                kubelet.show(pod, ready=True)
            else:
                self._admit(kubelet.cluster, obj)
            self.sync_services(cluster)

    def add_pod(self, cluster: str, name: str, *, like: str, ip: str | None = None) -> None:
        """Adds a pod with the spec and labels of another one."""
        model = self.pod(cluster, like)
        check_name(name)
        namespace = model["metadata"]["namespace"]
        if any(
            (pod["metadata"]["namespace"], pod["metadata"]["name"]) == (namespace, name)
            for pod in self.kubelet(cluster).objects.list("Pod")
        ):
            raise ConfigError(f"{cluster}: there is a pod {namespace}/{name} already")
        annotations = {
            key: value for key, value in model["metadata"].get("annotations", {}).items() if key != IP_ANNOTATION
        }
        if ip is not None:
            annotations[IP_ANNOTATION] = ip
        metadata = {**model["metadata"], "name": name, "annotations": annotations}
        spec = {key: value for key, value in model["spec"].items() if key != "nodeName"}
        self.apply(cluster, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    def delete_pod(self, cluster: str, name: str) -> None:
        """Ends a pod and removes it."""
        with self.locked():
            kubelet = self.kubelet(cluster)
            kubelet.remove(self.pod(cluster, name))
            self.sync_services(cluster)

    def sync_services(self, cluster: str) -> None:
        """What kube-proxy does after a change, on every node of the cluster."""
        kubelet = self.kubelets[cluster]
        ports = kubeproxy.service_ports(kubelet.objects.list("Service"), kubelet.objects.list("Pod"))
        for node in kubelet.cluster.nodes:
            netns.nft(kubeproxy.ruleset(ports), namespace=self.layout.node(cluster, node.name))

    def ready_pods(self, cluster: str) -> list[Object]:
        """The pods of a cluster that are ready."""
        return [pod for pod in self.kubelet(cluster).objects.list("Pod") if is_ready(pod)]
