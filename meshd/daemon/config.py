"""The daemon's configuration: keys of the file are the flags' names with "_"."""

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from datapath.maglev import DEFAULT_SIZE
from datapath.pins import Attachment
from globalsvc.preferences import Balancing
from meshd.config import Settings
from policy.model import Mode
from routing.plan import Mode as RoutingMode


class DaemonConfig(Settings):
    """One daemon, on one node."""

    cluster: str
    """Name of this cluster."""
    cluster_id: int
    node: str
    """Name of this node, as the cluster's records have it."""
    local: Path
    """File in the format of a clustermesh file that names this cluster's own proxy."""
    clustermesh: Path
    """Folder with one file per remote cluster."""
    bpffs: Path
    cgroup: Path
    """cgroup v2 folder whose sockets are balanced."""
    run_dir: Path = Path("/run/meshd")
    instance: str = ""
    """Default: <cluster>.<node>"""
    device: str = ""
    """Underlay device, whose MTU bounds the tunnel's packets. Default: that of the default route."""
    health: str = ""
    """IP:PORT of /healthz, /readyz and /metrics; nowhere if empty."""
    tunnel: str = "vxlan:8473"
    """What this node's tunnel device is: vxlan:PORT or geneve:PORT, as the node announces it (agent's `tunnel`)."""
    routing_mode: RoutingMode = RoutingMode.TUNNEL
    """How nodes of other clusters are reached: tunnel, direct or hybrid. A remote's file may say another one."""
    underlay: Literal[4, 6] = 4
    """IP version of the nodes' addresses that tunnels end at."""
    subnets: tuple[tuple[IPv4Network | IPv6Network, ...], ...] = ()
    """Groups of networks between whose nodes routers carry the pods' packets too: direct although not on-link."""
    unreachable: Literal["skip", "error"] = "skip"
    """Whether a remote node that nothing leads to makes this daemon degraded."""
    host_routes: bool = True
    """Whether the node itself shall reach the pods of other clusters."""
    through_stack: bool = False
    """Whether packets between pods here and of other clusters pass the node's stack, for a CNI's rules to see."""
    export_pod_cidrs: bool = False
    """Whether this node's PodCIDRs stand in table 110, for a routing daemon to announce."""
    max_clusters: int = 255
    load_balancing: Balancing = Balancing.RANDOM
    """How a backend is chosen where a service does not say (meshd.io/load-balancing)."""
    maglev_size: int = DEFAULT_SIZE
    """Entries of a Maglev table, four bytes each; a hundred times as many as backends makes them even."""
    attachment: Attachment = Attachment.AUTO
    """How programs are attached to interfaces: auto (tcx where the kernel has it), tcx or clsact."""
    map_sizes: dict[str, int] = Field(default_factory=dict)
    """Entries of a BPF map, by its name, where not the default of datapath/layout.py."""
    policy: Mode = Field(default=Mode.AUDIT, strict=False)
    """off: nothing is judged; audit: what a policy would drop is told, and passes; enforce."""
    policy_namespaces: dict[str, Annotated[Mode, Field(strict=False)]] = Field(default_factory=dict)
    """The same for single namespaces."""
    policy_default_local_cluster: bool = True
    """A selector that names no cluster means the local one. Off: every cluster."""

    @field_validator("bpffs", "cgroup")
    @classmethod
    def _check_folder(cls, folder: Path) -> Path:
        if not folder.is_dir():
            raise ValueError("is no folder on this machine: nothing has been changed")
        return folder

    @property
    def name(self) -> str:
        return self.instance or f"{self.cluster}.{self.node}"

    @property
    def socket(self) -> Path:
        return self.run_dir / self.name / "daemon.sock"
