"""What tests of ways between the nodes of a testbed share: asking daemons and the kernel, requests, modes."""

import json
import socket
import subprocess
import sys
from contextlib import closing, suppress
from functools import partial
from typing import Any

import yaml

from datapath.maps import Maps
from datapath.pins import Pins
from meshd.daemon.kernel import describe_entry
from meshd.socket import SocketError, get
from meshd.testbed import netns
from meshd.testbed.demo import load
from meshd.testbed.demo.results import Load, parse
from meshd.testbed.layout import BPFFS
from meshd.testbed.parts import socket_path
from meshd.testbed.process import Place
from meshd.testbed.testbed import Testbed
from tests.support.waiting import until

IP_MTU_DISCOVER, DO, IP_MTU = 10, 2, 14  # linux/in.h
HEADERS = 28  # of IPv4 and UDP, bytes


def asked(bed: Testbed, cluster: str, node: str, route: str = "/v1/status") -> dict[str, Any]:
    """What a daemon says, empty if it does not answer."""
    try:
        answer: dict[str, Any] = get(socket_path(bed.layout, cluster, node, "daemon"), route)
    except SocketError:
        return {}
    return answer


def held(bed: Testbed, map: str, cluster: str = "cluster1", node: str = "node1") -> list[str]:
    with Maps(Pins(BPFFS, bed.layout.instance(cluster, node)).folder) as maps:
        return sorted(describe_entry(map, *item) for item in maps.dump(map).items())


def from_node(bed: Testbed, host: str, port: int, requests: int, node: str = "node1") -> Load:
    """Requests of a process of the node itself: host network, in the node's cgroup."""
    place = Place(bed.layout.node("cluster1", node), bed.cgroups / f"cluster1-{node}")
    argv = [sys.executable, "-I", load.__file__, host, str(port), f"--requests={requests}"]
    return parse(subprocess.check_output(argv, preexec_fn=place.enter).splitlines())


def from_pod(bed: Testbed, pod: str, host: str, port: int, *more: str) -> "subprocess.Popen[bytes]":
    argv = [sys.executable, "-m", "meshd", "testbed", "exec", "--tag", bed.layout.tag, pod, "--"]
    argv += [sys.executable, "-I", load.__file__, host, str(port), *more]
    return subprocess.Popen(argv, stdout=subprocess.PIPE)


def answers(process: "subprocess.Popen[bytes]") -> Load:
    output, _ = process.communicate(timeout=60)
    return parse(output.splitlines())


def nodes(bed: Testbed) -> list[tuple[str, str]]:
    """Cluster and name of every node."""
    return [(cluster.name, node.name) for cluster in bed.clusters for node in cluster.nodes]


def set_mode(bed: Testbed, mode: str | None, clusters: tuple[str, ...] = ("cluster1", "cluster2")) -> None:
    """Writes `meshd: routing-mode:` into the clustermesh files of every node, and waits until the plan follows."""
    chosen = [(cluster, node) for cluster, node in nodes(bed) if cluster in clusters]
    for cluster, node in chosen:
        for path in bed.layout.clustermesh(cluster, node).iterdir():
            document = yaml.safe_load(path.read_text())
            ours = {key: value for key, value in (document.get("meshd") or {}).items() if key != "routing-mode"}
            document["meshd"] = ours | ({"routing-mode": mode} if mode else {})
            new = path.with_name(f".{path.name}")
            new.write_text(yaml.safe_dump(document))
            new.rename(path)
    kind = {"direct": "direct", "hybrid": "direct", "tunnel": "tunnel", None: "tunnel"}[mode]
    for cluster, node in chosen:
        until(lambda c=cluster, n=node: kinds(bed, c, n) == {kind}, lambda c=cluster, n=node: kinds(bed, c, n))  # type: ignore[misc]


def kinds(bed: Testbed, cluster: str, node: str) -> set[str]:
    """How the nodes of the other cluster are reached, by the plan and by the kernel."""
    plan = asked(bed, cluster, node, "/v1/plan")
    found = {route["kind"] for route in plan.get("routes", ()) if route["cluster"] != cluster}
    remote = [line for line in held(bed, "md_node", cluster, node) if "remote=True" in line]
    return found | {"tunnel" if "direct4=none" in line else "direct" for line in remote}


def tunnel_packets(bed: Testbed) -> int:
    """Packets that the tunnel devices of cluster1 have sent."""
    total = 0
    for node in ("node1", "node2"):
        words = ["ip", "-s", "-j", "link", "show", "md_vxlan"]
        shown = netns.output(words, namespace=bed.layout.node("cluster1", node))
        total += int(json.loads(shown)[0]["stats64"]["tx"]["packets"])
    return total


def told_size(namespace: str, address: str, size: int) -> int:
    """What the kernel of a pod has been told of the way when an IPv4 datagram of `size` bytes did not fit."""
    with closing(netns.inside(namespace, partial(socket.socket, socket.AF_INET, socket.SOCK_DGRAM))) as client:
        client.connect((address, 9))
        client.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, DO)
        with suppress(OSError):  # the first send hears it, or the second
            client.send(bytes(size - HEADERS))
            client.send(bytes(8))
        return client.getsockopt(socket.IPPROTO_IP, IP_MTU)
