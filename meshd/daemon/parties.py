"""Who is behind an address, as the datapath judges it and as people call it."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, cast

from datapath.description import decode
from datapath.entries import Entry, IPAddress, ipcache_entry
from datapath.policing import outside_entry
from identity.numbering import FIRST_UNRESERVED, Reserved, cluster_of
from wire.keys import Kind
from wire.labels import CLUSTER_LABEL
from wire.records import IP, value_or

if TYPE_CHECKING:
    from meshd.daemon.program import Daemon

Json = dict[str, Any]


class Parties:
    """Reads a daemon; changes nothing."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon, self._policing = daemon, daemon.policing

    def address(self, text: str) -> IPAddress:
        """An address, or `[cluster/]namespace/pod`. Raises ValueError."""
        if "/" not in text:
            return ip_address(text)
        *cluster, namespace, pod = text.split("/")
        for name in cluster or [self._daemon.config.cluster]:
            state = self._daemon.store.clusters.get(name)
            for record in (state.shelf(Kind.IP).records if state else {}).values():
                ip = cast(IP, record)
                if ip.mask is None and (value_or(ip.namespace, ""), value_or(ip.pod_name, "")) == (namespace, pod):
                    return ip_address(ip.ip)
        raise ValueError(f"no pod {text} is known")

    def identity(self, address: IPAddress) -> int:
        """As the datapath finds it: the ipcache, then prefixes outside the mesh, else the world."""
        key = ipcache_entry(address, identity=0, tunnel=None, remote=False).key
        value = self._daemon.maps.delta.desired["md_ipcache"].get(key)
        if value is not None:
            facts = decode(Entry("md_ipcache", key, value))
            identity = cast(int, facts["identity"])
            foreign = facts["remote"] and identity <= 255 and identity != Reserved.REMOTE_NODE
            return 0 if foreign else identity
        outside, cidrs = self._daemon.policy.delta.desired["md_outside"], self._daemon.maps.delta.desired["md_cidrs"]
        keys = [
            outside_entry(ip_network((address, length), strict=False), 0).key
            for length in range(address.max_prefixlen, -1, -1)
        ]
        found = next((key for key in keys if key in outside), None)
        number = cast(int, decode(Entry("md_outside", found, outside[found]))["identity"]) if found else None
        if any(key in cidrs for key in keys) and (number is None or number >= FIRST_UNRESERVED):
            return int(Reserved.UNKNOWN)  # in a PodCIDR, and no pod that was announced
        return int(Reserved.WORLD) if number is None else number

    def is_unverified(self, address: IPAddress) -> bool:
        """An address of a remote PodCIDR that no cluster has announced (yet)."""
        key = ipcache_entry(address, identity=0, tunnel=None, remote=False).key
        return key not in self._daemon.maps.delta.desired["md_ipcache"] and not self.identity(address)

    def who(self, address: IPAddress) -> Json:
        """Everything that is known of it."""
        identity = self.identity(address)
        labels = self._policing.engine.peers.labels.get(identity, {})
        return {
            "address": str(address),
            "identity": identity,
            "cluster": labels.get(CLUSTER_LABEL, "") or self._cluster(identity),
            "pod": self.name(str(address)),
            "labels": [f"{key}={value}" if value else key for key, value in sorted(labels.items())],
        }

    def nobody(self, netns: int) -> Json:
        """A socket of this node, in a network namespace that is gone or cannot be seen."""
        return {"address": "", "identity": 0, "cluster": "", "pod": "", "labels": [], "netns": netns}

    def _cluster(self, identity: int) -> str:
        number = cluster_of(identity, max_clusters=self._daemon.config.max_clusters) if identity < 1 << 24 else 0
        return self._daemon.members.name_of(number) or "" if number else ""

    def name(self, address: str) -> str:
        """The pod as `namespace/name`, "" if none is known there."""
        for state in self._daemon.store.clusters.values():
            record = cast(IP | None, state.record(Kind.IP, address))
            if record is not None and value_or(record.pod_name, ""):
                return f"{value_or(record.namespace, '')}/{value_or(record.pod_name, '')}"
        return ""
