"""Ways between nodes, each beside what the plain kernel does, in one run:

* tunnel: beside a kernel VXLAN device with static entries (bench/plain.py);
* direct: beside kernel routing (bench/plain.py);
* bystander: the same plain routing with the programs that the mesh puts there when its peers are in mode tunnel,
  beside without; "with direct peers": and when some are not, with a program on the underlay device too. The maps hold
  1 000 nodes, 10 000 pods and 100 services of others, and a flow was translated once.

Throughput (1 and 8 streams), requests and answers, datagrams a second (bench/packet_rate.py); interleaved pairs, both
ends on one CPU. `--pairs 1` is quick, `--only` and `--measure` take some of it. How soon nodes are reached:
bench/convergence.py.
"""

import argparse
import json
import secrets
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address, ip_network
from itertools import chain

import yaml

from bench.packet_rate import packet_rate
from bench.plain import Plain
from bench.report import Aim, report, spread
from bench.tunnel import IPERF_PORT, Way, mesh_way, plain_way, request_response, run, started
from datapath import entries
from datapath.attach import attach_endpoint, attach_network, detach
from datapath.entries import Entry
from datapath.loader import LoadSettings, ensure_loaded
from datapath.maps import Maps
from datapath.uninstall import uninstall
from meshd.socket import SocketError, get
from meshd.testbed import cgroup, netns
from meshd.testbed.check import ensure_bpffs
from meshd.testbed.layout import BPFFS
from meshd.testbed.parts import socket_path
from meshd.testbed.testbed import Testbed

SECONDS = 2
AIM, LEAST, BYSTANDER = 0.98, 0.95, 0.99
MESH = ("tunnel", "direct")
BYSTANDERS = ("bystander", "bystander with direct peers")
MODE_DEADLINE_S = 10.0
TCP, USED = 6, (1).to_bytes(4, sys.byteorder)
Figure = Callable[[Way], float]


def streams(number: int) -> Figure:
    """Gbit/s of so many TCP streams, the median of half seconds (see bench/tunnel.py)."""

    def measure(way: Way) -> float:
        client = ["iperf3", "-c", way.address, "-t", str(SECONDS), "-O", "1", "-i", "0.5", "-C", "cubic", "-J"]
        intervals = json.loads(run(way, ["iperf3", "-s"], IPERF_PORT, [*client, "-P", str(number)]))["intervals"]
        rates = [float(part["sum"]["bits_per_second"]) for part in intervals if not part["sum"]["omitted"]]
        return statistics.median(rates) / 1e9

    return measure


MEASURES: dict[str, tuple[str, Figure]] = {
    "1 stream": ("Gbit/s", streams(1)),
    "8 streams": ("Gbit/s", streams(8)),
    "request/response": ("1/s", request_response),
    "UDP packets": ("1000/s", partial(packet_rate, seconds=SECONDS)),
}


@dataclass(frozen=True, slots=True)
class Contest:
    """Two ways and how near ours has to come; `switch` turns ours on (True) or off before each figure."""

    name: str
    ours: Way
    theirs: Way
    aim: float
    switch: Callable[[bool], None] = lambda on: None

    def figure(self, way: Way, measure: Figure) -> float:
        self.switch(way is self.ours)
        return measure(way)


def compete(contest: Contest, pairs: int, only: str = "") -> tuple[list[dict[str, object]], list[Aim]]:
    """Each measure, or only that one, in interleaved pairs."""
    rows: list[dict[str, object]] = []
    aims = []
    for name, (unit, measure) in MEASURES.items():
        if only not in ("", name):
            continue
        mine: list[float] = []
        peers: list[float] = []
        for number in range(pairs):
            order = (contest.ours, contest.theirs) if number % 2 else (contest.theirs, contest.ours)
            for way in order:
                (mine if way is contest.ours else peers).append(contest.figure(way, measure))
        ratios = [a / b for a, b in zip(mine, peers, strict=True)]
        what = f"{contest.name}: {name}"
        figures = {"meshd": spread(mine), "plain": spread(peers), "ratio": spread(ratios)}
        rows.append({"what": what, "unit": unit, **figures})
        print(f"  {what}: {statistics.median(ratios):.3f}", file=sys.stderr, flush=True)
        median = statistics.median(ratios)
        aims.append(Aim(what, f"≥ {contest.aim}, never < {LEAST}", median, median >= contest.aim))
    return rows, aims


def set_mode(bed: Testbed, mode: str) -> None:
    """For every peer, in the clustermesh files; returns when every daemon's plan follows."""
    for cluster in bed.clusters:
        for node in cluster.nodes:
            for path in bed.layout.clustermesh(cluster.name, node.name).iterdir():
                document = yaml.safe_load(path.read_text())
                document["meshd"] = {**(document.get("meshd") or {}), "routing-mode": mode}
                path.write_text(yaml.safe_dump(document))
    end = time.monotonic() + MODE_DEADLINE_S
    while any(_kinds(bed, c.name, n.name) != {mode} for c in bed.clusters for n in c.nodes):
        if time.monotonic() > end:
            raise RuntimeError(f"not all nodes follow mode {mode} after {MODE_DEADLINE_S:.0f} s")
        time.sleep(0.05)


def _kinds(bed: Testbed, cluster: str, node: str) -> set[str]:
    try:
        plan = get(socket_path(bed.layout, cluster, node, "daemon"), "/v1/plan")
    except SocketError:
        return set()
    return {route["kind"] for route in plan["routes"] if route["cluster"] != cluster}


def mesh_of_others() -> list[Entry]:
    """What a node of a mesh knows: nothing of it is about the bystanders."""
    held = [entries.config_entry(tunnel_ifindex=0, underlay_mtu=1500), Entry("md_used", bytes(4), USED)]
    for number in range(1_000):
        node, prefix = ip_address("172.19.0.0") + number, ip_network((0x14000000 + (number << 8), 24))
        held.append(entries.node_entry(node, cluster_id=2, remote=True))
        held.append(entries.cidr_entry(prefix, identity=0, tunnel=node, remote=True))
        held += [entries.ipcache_entry(prefix[pod], identity=9, tunnel=node, remote=True) for pod in range(1, 11)]
    for number in range(100):
        held.append(entries.backend_entry(number + 1, ip_address("20.0.0.1") + number, 80, TCP))
        held += entries.service_entries(ip_address("30.1.0.0") + number, 80, TCP, [number + 1])
    return held


class Programs:
    """The mesh's programs on a plain node: nothing of what passes is the mesh's."""

    def __init__(self, plain: Plain, stack: ExitStack) -> None:
        ensure_bpffs(BPFFS)
        self._plain = plain
        self._folder = cgroup.find_root() / plain.tag
        self._folder.mkdir()
        stack.callback(self._folder.rmdir)
        self._loaded = {}
        for side in ("a", "b"):
            instance = f"{plain.tag}-{side}"
            self._loaded[side] = loaded = ensure_loaded(LoadSettings(BPFFS, instance, self._folder))
            stack.callback(netns.inside, plain.node(side), partial(uninstall, BPFFS, instance))
            with Maps(loaded.folder) as maps:
                held = mesh_of_others()
                for name in {entry.map for entry in held}:
                    maps.upsert(name, {entry.key: entry.value for entry in held if entry.map == name})

    def switch(self, on: bool, direct: bool = False) -> None:
        """`direct`: some peers are not in mode tunnel."""
        for side in ("a", "b"):
            netns.inside(self._plain.node(side), partial(self._set, side, on, direct))

    def _set(self, side: str, on: bool, direct: bool) -> None:
        pod, eth0 = socket.if_nametoindex("pod0"), socket.if_nametoindex("eth0")
        if on:
            attach_endpoint(pod, self._loaded[side].programs)
            if direct:
                attach_network(eth0, self._loaded[side].programs)
            return
        for ifindex in (pod, eth0):
            detach(ifindex, self._loaded[side].programs)


def routed_way(plain: Plain, name: str) -> Way:
    return Way(
        name,
        lambda *argv: started(plain.client(*argv)),
        lambda *argv: started(plain.server(*argv)),
        plain.server_address,
    )


def mesh_contests(stack: ExitStack, only: str) -> Iterator[Contest]:
    """Ours on a testbed with everything running, in the mode that is asked for."""
    bed = Testbed(f"rt{secrets.token_hex(2)}")
    stack.callback(bed.down)
    bed.up(progress=lambda what: print(f"  {what}", file=sys.stderr, flush=True))
    for cluster in bed.clusters:
        for node in cluster.nodes:
            netns.nft("flush ruleset\n", namespace=bed.layout.node(cluster.name, node.name))
    if only != "direct":
        set_mode(bed, "tunnel")
        yield Contest("tunnel", mesh_way(bed), plain_way(peer(stack, "vxlan")), AIM)
    if only != "tunnel":
        set_mode(bed, "direct")
        yield Contest("direct", mesh_way(bed), routed_way(peer(stack, "routing"), "kernel routing"), AIM)


def bystander_contests(stack: ExitStack, only: str) -> Iterator[Contest]:
    routing = peer(stack, "routing")
    programs = Programs(routing, stack)
    ours, theirs = routed_way(routing, "with programs"), routed_way(routing, "kernel routing")
    for name, direct in zip(BYSTANDERS, (False, True), strict=True):
        if only in ("", name):
            yield Contest(name, ours, theirs, BYSTANDER, partial(programs.switch, direct=direct))


def peer(stack: ExitStack, kind: str) -> Plain:
    plain = stack.enter_context(Plain(kind))
    print("the peer is set up with:", *(" ".join(c) for c in plain.commands), sep="\n  ", file=sys.stderr)
    return plain


def main() -> None:
    parser = argparse.ArgumentParser(description="Ways beside what the plain kernel does; about eight minutes.")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", choices=[*MESH, *BYSTANDERS], default="")
    parser.add_argument("--measure", choices=list(MEASURES), default="")
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    aims: list[Aim] = []
    with ExitStack() as stack:
        contests = [] if arguments.only in BYSTANDERS else [mesh_contests(stack, arguments.only)]
        contests += [] if arguments.only in MESH else [bystander_contests(stack, arguments.only)]
        for contest in chain.from_iterable(contests):
            found, judged = compete(contest, arguments.pairs, arguments.measure)
            rows, aims = [*rows, *found], [*aims, *judged]
    report("routing", rows, aims)


if __name__ == "__main__":
    main()
