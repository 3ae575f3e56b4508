"""Step b's proof by others: the servers' logs, the wire, the nft counters, bpftool."""

from collections import Counter
from dataclasses import dataclass
from ipaddress import IPv4Address

from meshd.testbed.demo import witness
from meshd.testbed.demo.pcap import Tunnelled
from meshd.testbed.demo.stage import CLIENT_ADDRESS, CLIENT_CLUSTER, CLIENT_NODE, SERVICE, Stage
from meshd.testbed.plan import CLUSTERS

BIG = 1_000_000
"""Bytes of an answer that needs full packets: with a wrong MSS the tunnel would fragment them."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the witnesses had counted before."""

    nft: witness.Counts
    log_lines: witness.Counts
    frames: int


def snapshot(stage: Stage) -> Snapshot:
    _, lines = witness.server_peers(stage.bed)
    return Snapshot(witness.count_nft(stage.bed), lines, len(stage.capture.frames().tunnelled))


@dataclass(frozen=True, slots=True)
class Proof:
    """What the witnesses saw, in a line, and what speaks against the mesh."""

    seen: str
    problems: list[str]


def prove(stage: Stage, before: Snapshot, *, expected_requests: int) -> Proof:
    """Asks the witnesses and keeps what they say as evidence. Makes some big requests of its own."""
    peers, _ = witness.server_peers(stage.bed, before.log_lines)
    problems = [] if peers == Counter({CLIENT_ADDRESS: expected_requests}) else [f"servers' logs: {dict(peers)}"]
    big = stage.request("b", 24, f"--size={BIG}", "--concurrency=4")
    if big.failures or any(answer.bytes < BIG for answer in big.requests):
        problems.append(f"{len(big.failures)} big requests failed")
    frames = stage.capture.frames()
    nft = witness.added(before.nft, witness.count_nft(stage.bed))
    packets = frames.tunnelled[before.frames :]
    problems += _packet_problems(stage, packets)
    if frames.fragments:
        problems.append(f"{frames.fragments} outer fragments")
    touched = [name for name in nft if SERVICE in name or name.endswith(" masqueraded")]
    if touched:
        problems.append(f"the cluster's own NAT saw it: {', '.join(touched)}")
    stage.keep("b-nft-added.json", nft)
    stage.keep("b-server-peers.json", dict(peers))
    stage.keep("b-daemon-status.json", witness.daemon_status(stage.bed))
    for cluster, node in ((CLIENT_CLUSTER, CLIENT_NODE), ("cluster2", "node1")):
        witness.keep_bpf(stage.bed, cluster, node, stage.evidence / "bpf" / f"{cluster}-{node}")
    return Proof(_told(packets, frames.fragments, sum(nft[name] for name in touched)), problems)


def _told(packets: tuple[Tunnelled, ...], fragments: int, natted: int) -> str:
    ours = {packet.vni for packet in packets if packet.inner[0] == IPv4Address(CLIENT_ADDRESS)}
    vni = ", ".join(str(number) for number in sorted(ours)) or "none"
    return f"wire: {len(packets)} tunnel packets, VNI {vni}, {fragments} fragments; the cluster's own NAT: {natted}"


def _packet_problems(stage: Stage, packets: tuple[Tunnelled, ...]) -> list[str]:
    """Outer addresses are the two nodes', the VNI is the identity that the source's own etcd gives it."""
    counted = Counter(packets)
    rows = [
        {
            "outer": [str(end) for end in packet.outer],
            "vni": packet.vni,
            "inner": [str(end) for end in packet.inner],
            "packets": count,
        }
        for packet, count in sorted(counted.items(), key=lambda item: (item[0].outer, item[0].inner))
    ]
    stage.keep("b-tunnel.json", rows)
    if not any(packet.inner[0] == IPv4Address(CLIENT_ADDRESS) for packet in packets):
        return ["no packet of frontend-1 in the tunnel"]
    try:
        return [problem for packet in counted if (problem := _packet_problem(stage, packet))]
    except KeyError as error:
        return [str(error.args[0])]


def _packet_problem(stage: Stage, packet: Tunnelled) -> str | None:
    source, destination = (_node_of(address) for address in packet.inner)
    if source is None or destination is None:
        return f"a packet between {packet.inner[0]} and {packet.inner[1]}, which are no pods"
    if packet.outer != (source[1], destination[1]):
        return f"{packet.inner[0]} → {packet.inner[1]} went by {packet.outer[0]} → {packet.outer[1]}"
    identity = witness.identity_of(stage.bed, source[0], str(packet.inner[0]))
    if packet.vni != identity:
        return f"packets of {packet.inner[0]} carry VNI {packet.vni}, its identity is {identity}"
    return None


def _node_of(pod: IPv4Address) -> tuple[str, IPv4Address] | None:
    for cluster in CLUSTERS.values():
        for node in cluster.nodes:
            if pod in node.pod_cidr:
                return cluster.name, node.address
    return None
