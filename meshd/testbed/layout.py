"""Where a testbed keeps its things: every name carries the tag, so that two of them can stand side by side."""

import re
from dataclasses import dataclass
from pathlib import Path

from meshd.config import ConfigError

ROOT = Path("/run/meshd/testbed")
"""State of all testbeds. On a tmpfs: a reboot leaves nothing. Short, because socket paths end at 107 characters."""
BPFFS = Path("/sys/fs/bpf")
PREFIX = "meshd-"
_TAG = re.compile(r"[a-z][a-z0-9]{0,11}")


@dataclass(frozen=True, slots=True)
class Layout:
    """The names and paths of one testbed."""

    tag: str

    def __post_init__(self) -> None:
        if not _TAG.fullmatch(self.tag):
            raise ConfigError(f"tag {self.tag!r}: must be a letter and up to 11 letters or digits, lower case")

    @property
    def prefix(self) -> str:
        """What namespaces' and the cgroup's names begin with; no other testbed's names do."""
        return f"{PREFIX}{self.tag}-"

    # network namespaces

    @property
    def switch(self) -> str:
        return f"{self.prefix}switch"

    def control_plane(self, cluster: str) -> str:
        return f"{self.prefix}{cluster}-control-plane"

    def node(self, cluster: str, node: str) -> str:
        return f"{self.prefix}{cluster}-{node}"

    def pod(self, cluster: str, namespace: str, pod: str) -> str:
        return f"{self.prefix}{cluster}-pod-{namespace}-{pod}"

    # files

    @property
    def state(self) -> Path:
        return ROOT / self.tag

    @property
    def complete(self) -> Path:
        """Names the clusters, once the underlay stands; without it, what is there is left by an interrupted run."""
        return self.state / "underlay-complete"

    @property
    def lock(self) -> Path:
        return ROOT / f"{self.tag}.lock"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def processes(self) -> Path:
        return self.state / "processes"

    @property
    def certs(self) -> Path:
        return self.state / "certs"

    @property
    def run(self) -> Path:
        """The run directory of our processes: `<run>/<instance>/daemon.sock`."""
        return self.state / "run"

    def objects(self, cluster: str) -> Path:
        """The running objects: what the agent watches."""
        return self.state / cluster / "objects"

    def seeded(self, cluster: str) -> Path:
        """Exists once all manifests of the cluster run."""
        return self.state / cluster / "seeded"

    def config(self, cluster: str) -> Path:
        """ConfigMaps: for the kubelets only."""
        return self.state / cluster / "config"

    def log(self, process: str) -> Path:
        return self.logs / f"{process}.log"

    def etcd(self, cluster: str) -> Path:
        return self.state / cluster / "etcd"

    def clustermesh(self, cluster: str, node: str) -> Path:
        """A file per remote cluster, for one node's daemon."""
        return self.state / cluster / "clustermesh" / node

    def local(self, cluster: str, node: str) -> Path:
        """How a node's daemon reaches its own cluster's proxy."""
        return self.state / cluster / "local" / f"{node}.yaml"

    # kernel

    def instance(self, cluster: str, role: str) -> str:
        """Instance of a process of meshd's. No dots: bpffs refuses them in names."""
        return f"{self.tag}-{cluster}-{role}"

    def cgroup(self, root: Path) -> Path:
        """The folder of all cgroups of this testbed, in the cgroup v2 mounted at `root`."""
        return root / f"{PREFIX}{self.tag}"


def standing() -> list[Layout]:
    """The testbeds that have a state folder, sorted by tag."""
    if not ROOT.is_dir():
        return []
    return [Layout(path.name) for path in sorted(ROOT.iterdir()) if path.is_dir() and _TAG.fullmatch(path.name)]
