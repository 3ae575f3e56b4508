"""The agent's configuration."""

import re
from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator, model_validator

from identity.labels import DEFAULT_DROP
from meshd.etcd import EtcdSettings
from wire.keys import is_cluster_name


class AgentConfig(EtcdSettings):
    """Every setting of `meshd agent`, as in its file. Durations are whole seconds, because etcd's leases are."""

    cluster: str
    #: Unique in the mesh, 1 to `max_clusters`.
    cluster_id: int = Field(ge=1)
    #: 255 or 511; must be the same in the whole mesh.
    max_clusters: int = 255
    #: The source: a folder of Kubernetes YAML, a kubeconfig (or a context of kubectl's own), or the pod's own cluster.
    manifests: Path | None = None
    kubeconfig: Path | None = None
    context: str = ""
    in_cluster: bool = Field(default=False, validate_default=True)
    #: A clustermesh folder: EndpointSlices are written for the headless global services of the clusters that it names.
    import_from: Path | None = None
    run_dir: Path = Path("/run/meshd")
    #: IP:PORT of /healthz, /readyz and /metrics; "" for nowhere.
    health: str = ""
    #: Names the socket's folder; by default the cluster's name.
    instance: str = ""
    #: How long records stay after the agent has died.
    lease_ttl_s: int = Field(default=900, ge=25, le=86_400)
    #: How long cluster-config and canaries stay after the agent has died; shorter than `lease_ttl_s`.
    beacon_ttl_s: int = Field(default=60, ge=5, le=86_400)
    #: How long a standby waits for an agent that has died.
    leader_ttl_s: int = Field(default=6, ge=2, le=3600)
    #: How long an identity that no pod uses keeps its number. Other clusters may hold on to it for a while.
    identity_grace_s: int = Field(default=900, ge=1)
    heartbeat_s: int = Field(default=15, ge=1, le=60)
    #: How other clusters reach the nodes: `vxlan:<port>`, "" says nothing about it.
    tunnel: str = "vxlan:8473"
    #: What holds for a namespace without the annotation clustermesh.cilium.io/global.
    namespaces_are_global: bool = True
    #: Patterns of labels that do not count for identities; a pattern must match the whole key.
    drop_labels: tuple[str, ...] = DEFAULT_DROP

    @field_validator("cluster")
    @classmethod
    def _check_cluster(cls, name: str) -> str:
        if not is_cluster_name(name):
            raise ValueError('must be 1 to 32 characters of a-z, 0-9 and "-", with no "-" at either end')
        return name

    @field_validator("in_cluster")
    @classmethod
    def _check_source(cls, in_cluster: bool, info: ValidationInfo) -> bool:
        """On the last of the sources, so that this is said together with what is wrong elsewhere."""
        sources = {
            "manifests": info.data.get("manifests"),
            "kubeconfig (or context)": info.data.get("kubeconfig") or info.data.get("context"),
            "in_cluster": in_cluster,
        }
        given = [name for name, value in sources.items() if value]
        if len(given) != 1:
            what = f"{' and '.join(given)} are given" if given else "none is given"
            raise ValueError(f"exactly one source is needed, {', '.join(sources)}: {what}")
        return in_cluster

    @field_validator("max_clusters")
    @classmethod
    def _check_max_clusters(cls, count: int) -> int:
        if count not in (255, 511):
            raise ValueError("must be 255 or 511")
        return count

    @field_validator("drop_labels")
    @classmethod
    def _check_patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no pattern ({error})") from error
        return patterns

    @model_validator(mode="after")
    def _check_together(self) -> "AgentConfig":
        if self.cluster_id > self.max_clusters:
            raise ValueError(f"cluster_id {self.cluster_id} is above max_clusters {self.max_clusters}")
        if self.import_from is not None and self.manifests is not None:
            raise ValueError("import_from needs a cluster to write EndpointSlices into: it cannot go with manifests")
        if self.beacon_ttl_s >= self.lease_ttl_s:
            raise ValueError(f"beacon_ttl_s {self.beacon_ttl_s} must be less than lease_ttl_s {self.lease_ttl_s}")
        return self

    @property
    def socket(self) -> Path:
        return self.run_dir / (self.instance or self.cluster) / "agent.sock"
