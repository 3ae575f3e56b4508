"""Policy across three clusters, on the testbed with everything running: whom a selector admits, what a peer that lies
gains, and that nothing which is closed opens while processes die, peers are lost and pods come.

    cluster1: rebel-base-1 10.0.0.1, under policy        cluster2: x-wing, frontend-1        cluster3: the same names
"""

import copy
import json
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import count
from typing import Any

import pytest

from datapath.maps import Maps
from datapath.pins import Pins
from meshd.socket import SocketError, get
from meshd.testbed.check import ensure_bpffs
from meshd.testbed.layout import BPFFS
from meshd.testbed.parts import ETCD_PORT, socket_path
from meshd.testbed.scheduler import IP_ANNOTATION
from meshd.testbed.testbed import Testbed
from meshd.testbed.trust import ensure_certificates, write_peers
from tests.support.netns import Namespace
from tests.support.waiting import until
from wire.codec import encode
from wire.keys import Kind, record
from wire.labels import CLUSTER_LABEL
from wire.records import IP

pytestmark = pytest.mark.root
DEADLINE_S = 30.0
DROPPED_S = 0.3
SERVER, PORT = "10.0.0.1", 8080
FRIEND = "cluster2/x-wing"
STRANGERS = ("cluster3/x-wing", "cluster2/frontend-1", "cluster1/x-wing", "cluster1/frontend-1")
CROSSED = (("cluster1", "node1"), ("cluster2", "node2"), ("cluster3", "node2"))
VERSION = count(1)
LIAR, LIAR_ADDRESS, LIAR_NODE, LIAR_IDENTITY = "cluster3/x-wing", "40.0.1.2", "172.18.3.12", (3 << 16) + 4321


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    testbed = Testbed(f"p{secrets.token_hex(3)}", ["cluster1", "cluster2", "cluster3"])
    try:
        testbed.up(mesh=False)
        ensure_bpffs(BPFFS)
        ensure_certificates(testbed.layout, testbed.clusters)
        write_peers(testbed.layout, testbed.clusters)
        # Of the daemons only those of the nodes that packets cross: they take the longest to start.
        daemons = {f"{cluster}/daemon-{node}" for cluster, node in CROSSED}
        parts = [part for name, part in testbed.parts.items() if "/daemon-" not in name or name in daemons]
        testbed.start_parts(parts)
        until(lambda: all(status(testbed, *each).get("state") == "ok" for each in CROSSED), "the mesh, on all of them")
        yield testbed
    finally:
        testbed.down()


def asked(bed: Testbed, route: str, cluster: str = "cluster1", node: str = "node1") -> Any:
    """What a daemon says, that which protects the server if no other; None if it does not answer."""
    try:
        return get(socket_path(bed.layout, cluster, node, "daemon"), route)
    except SocketError:
        return None


def status(bed: Testbed, cluster: str = "cluster1", node: str = "node1") -> dict[str, Any]:
    return asked(bed, "/v1/status", cluster, node) or {}


def selector(*, cluster: object = None, **labels: str) -> dict[str, Any]:
    """Pods with these labels; `cluster`: its name, "*" for every one, None for none said."""
    if cluster == "*":
        return {"matchLabels": labels, "matchExpressions": [{"key": CLUSTER_LABEL, "operator": "Exists"}]}
    return {"matchLabels": {**labels, **({CLUSTER_LABEL: cluster} if cluster else {})}}


def protect(bed: Testbed, *peers: dict[str, Any]) -> None:
    """The server lets in these; waits until that is in force."""
    ingress = [{"fromEndpoints": list(peers)}, {"fromCIDR": [f"198.51.100.{next(VERSION)}/32"]}]  # never the same
    spec = {"endpointSelector": {"matchLabels": {"name": "rebel-base"}}, "ingress": ingress}
    metadata = {"name": "rebel-base", "namespace": "default"}
    before = in_force(bed)
    kind = {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy"}
    bed.apply("cluster1", {**kind, "metadata": metadata, "spec": spec})
    until(lambda: in_force(bed) not in ({}, before) and pods_in_force(bed), "the policy")


def in_force(bed: Testbed) -> dict[bytes, bytes]:
    """What the kernel of the server's node holds for."""
    with Maps(Pins(BPFFS, bed.layout.instance("cluster1", "node1")).folder) as maps:
        return maps.dump("md_subject")


def pods_in_force(bed: Testbed, host: str = SERVER) -> bool:
    return any(f"({host})" in pod for policy in asked(bed, "/v1/policies") or [] for pod in policy["in_force"])


def reaches(bed: Testbed, source: str, host: str = SERVER, *, within: float = DEADLINE_S) -> bool:
    cluster, _, pod = source.partition("/")
    namespace = Namespace(bed.layout.pod(cluster, "default", pod))
    with closing(namespace.socket(socket.AF_INET, socket.SOCK_STREAM, timeout=within)) as client:
        try:
            client.connect((host, PORT))
        except OSError:
            return False
        return True


def who_reaches(
    bed: Testbed, admitted: set[str], sources: Sequence[str] = (FRIEND, *STRANGERS), host: str = SERVER
) -> set[str]:
    """Those of the sources that get through; patient with those who ought to."""
    return {source for source in sources if reaches(bed, source, host, within=10 if source in admitted else DROPPED_S)}


@contextmanager
def knocking(bed: Testbed, sources: Sequence[str], host: str = SERVER) -> Iterator[list[str]]:
    """All of these try to connect, all the time; in the list is who got through."""
    stop, passed = threading.Event(), list[str]()

    def knock(source: str) -> None:
        while not stop.is_set():
            if reaches(bed, source, host, within=0.1):
                passed.append(source)

    threads = [threading.Thread(target=knock, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    try:
        yield passed
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize(
    ("peer", "admitted"),
    [
        (selector(name="x-wing", cluster="cluster2"), {"cluster2/x-wing"}),
        (selector(name="x-wing"), {"cluster1/x-wing"}),
        (selector(name="x-wing", cluster="*"), {"cluster1/x-wing", "cluster2/x-wing", "cluster3/x-wing"}),
        (selector(cluster="cluster2"), {"cluster2/x-wing", "cluster2/frontend-1"}),
    ],
    ids=["one-cluster", "none-said", "every-cluster", "all-of-one"],
)
def test_whom_a_selector_admits(bed: Testbed, peer: dict[str, Any], admitted: set[str]) -> None:
    protect(bed, peer)
    assert who_reaches(bed, admitted) == admitted


def full_name(pod: str) -> str:
    return pod.replace("/", "/default/")


def said(bed: Testbed, *words: str) -> "subprocess.CompletedProcess[str]":
    """What a command says about the daemon that protects the server."""
    where = ["--run-dir", str(bed.layout.run), "--instance", bed.layout.instance("cluster1", "node1")]
    return subprocess.run([sys.executable, "-m", "meshd", *words, *where], capture_output=True, text=True)


def test_the_commands_say_what_the_kernel_does(bed: Testbed) -> None:
    protect(bed, selector(name="x-wing", cluster="cluster2"))
    assert not reaches(bed, LIAR, within=DROPPED_S)
    assert reaches(bed, FRIEND, within=10)
    ask = "monitor", "--seconds=0", "--last=1000"
    drops = *ask, "-o", "json", "--from", full_name(LIAR), "--to", SERVER
    until(lambda: said(bed, *drops).stdout.strip(), "the drop is told")
    event = json.loads(said(bed, *drops).stdout.splitlines()[-1])
    assert (event["verdict"], event["reason"], event["direction"]) == ("drop", "policy-closed", "ingress")
    assert (event["source"]["pod"], event["source"]["cluster"]) == ("default/x-wing", "cluster3")
    assert (event["destination"]["pod"], event["destination"]["port"]) == ("default/rebel-base-1", PORT)
    assert "name=x-wing" in event["source"]["labels"]
    allowed = partial(said, bed, *ask, "--from", full_name(FRIEND))
    until(lambda: "allow ingress TCP/8080" in allowed().stdout, lambda: allowed().stdout)
    assert "CiliumNetworkPolicy default/rebel-base spec.ingress[0]" in allowed().stdout
    assert " dropped: policy-closed: no rule allows it" in said(bed, "monitor", "--counters").stdout
    friend, liar = (said(bed, "policy", "trace", full_name(source), f"{SERVER}:{PORT}") for source in (FRIEND, LIAR))
    assert (friend.returncode, liar.returncode) == (0, 1)
    assert "ingress: passes (enforce): CiliumNetworkPolicy default/rebel-base spec.ingress[0]" in friend.stdout
    assert "ingress: dropped (enforce): no rule allows it" in liar.stdout
    listed = said(bed, "policy", "list")
    assert listed.returncode == 0
    assert "default/rebel-base-1 (10.0.0.1)" in listed.stdout
    assert "not enforced" not in listed.stdout


def etcdctl(bed: Testbed, cluster: str, *words: str) -> None:
    argv = ["nsenter", f"--net=/run/netns/{bed.layout.control_plane(cluster)}", "etcdctl"]
    argv += [f"--endpoints=http://127.0.0.1:{ETCD_PORT}", *words]
    subprocess.run(argv, check=True, capture_output=True)


def refused(bed: Testbed) -> int:
    """Records of cluster3 that the daemon did not believe."""
    kinds = next(each["kinds"] for each in status(bed)["clusters"] if each["cluster"] == "cluster3")
    return sum(kind["rejected"] + kind["quarantined"] for kind in kinds.values())


def ip_record(address: str, identity: int) -> tuple[str, str]:
    return record(Kind.IP, "cluster3", address), encode(IP(ip=address, host_ip=LIAR_NODE, id=identity)).decode()


def identity_record(number: int, labels: dict[str, str]) -> tuple[str, str]:
    text = "".join(f"{key}={value};" for key, value in sorted(labels.items()))
    return record(Kind.IDENTITY, "cluster3", str(number)), text


def friends_identity(bed: Testbed) -> int:
    host = bed.pod("cluster2", "x-wing")["status"]["podIP"]
    answer = asked(bed, f"/v1/policies/trace/{host}/{SERVER}/TCP/{PORT}")
    return int(answer["source"]["identity"])


def test_what_is_closed_stays_closed_whatever_dies(bed: Testbed) -> None:
    protect(bed, selector(name="x-wing", cluster="cluster2"))
    daemon = "cluster1/daemon-node1"
    with knocking(bed, STRANGERS) as passed:
        bed.kill_part(daemon)
        assert reaches(bed, FRIEND, within=10), "the kernel goes on"
        bed.start_parts([bed.part(daemon)])
        until(lambda: status(bed).get("events", {}).get("reconciled"), "the daemon")
        assert reaches(bed, FRIEND, within=10)
        for cluster in ("cluster2", "cluster3"):
            bed.kill_part(f"{cluster}/proxy")
        bed.kill_part(daemon)
        bed.start_parts([bed.part(daemon)])
        until(lambda: status(bed).get("events", {}).get("local-synced") is not None, "the own cluster")
        assert reaches(bed, FRIEND, within=10), "who was allowed still is, though its cluster is silent"
        bed.start_parts([bed.part(f"{cluster}/proxy") for cluster in ("cluster2", "cluster3")])
        until(lambda: status(bed).get("state") == "ok", "all clusters")
        assert reaches(bed, FRIEND, within=10)
    assert not passed


@pytest.mark.parametrize("labels", [{}, {"version": "two"}], ids=["known-identity", "new-identity"])
def test_a_new_pod_is_closed_to_other_clusters_from_its_first_packet(bed: Testbed, labels: dict[str, str]) -> None:
    protect(bed, selector(name="x-wing", cluster="cluster2"))
    name, host = ("rebel-base-8", "10.0.0.80") if labels else ("rebel-base-7", "10.0.0.70")
    pod = copy.deepcopy(bed.pod("cluster1", "rebel-base-1"))
    pod.pop("status", None)
    pod["metadata"] |= {"name": name, "labels": {**pod["metadata"]["labels"], **labels}}
    pod["metadata"]["annotations"] = {IP_ANNOTATION: host}
    strangers = [stranger for stranger in STRANGERS if not stranger.startswith("cluster1")]
    with knocking(bed, strangers, host) as passed:
        bed.apply("cluster1", json.loads(json.dumps(pod)))
        until(lambda: reaches(bed, FRIEND, host, within=0.2), "the friend's first connection")
        time.sleep(0.5)
    assert not passed
    bed.delete_pod("cluster1", name)


def test_within_the_cluster_a_new_pod_is_closed_once_it_is_shown_to_be(bed: Testbed) -> None:
    """The bounded choice for its first packets: by the node's stack they may come before its record is heard."""
    protect(bed, selector(name="x-wing", cluster="cluster2"))
    host = "10.0.0.90"
    pod = copy.deepcopy(bed.pod("cluster1", "rebel-base-1"))
    pod.pop("status", None)
    pod["metadata"] |= {"name": "rebel-base-9", "annotations": {IP_ANNOTATION: host}}
    strangers = [stranger for stranger in STRANGERS if stranger.startswith("cluster1")]
    with knocking(bed, strangers, host):
        bed.apply("cluster1", json.loads(json.dumps(pod)))
        until(lambda: pods_in_force(bed, host), "the policy for the new pod")
    assert who_reaches(bed, {FRIEND}, (FRIEND, *strangers), host) == {FRIEND}
    bed.delete_pod("cluster1", "rebel-base-9")


def test_a_peer_that_lies_gains_nothing(bed: Testbed) -> None:
    """The last one: what a dead agent leaves behind is not cleaned up soon."""
    protect(bed, selector(name="x-wing", cluster="cluster2"))
    friend = friends_identity(bed)
    friends_address = bed.pod("cluster2", "x-wing")["status"]["podIP"]
    assert bed.pod("cluster3", "x-wing")["status"]["podIP"] == LIAR_ADDRESS
    labels = {"k8s:name": "x-wing", "k8s:io.kubernetes.pod.namespace": "default"}
    cluster2, cluster3 = ({f"k8s:{CLUSTER_LABEL}": name} for name in ("cluster2", "cluster3"))
    # Each with how many records of cluster3 are refused while it stands; the others count for nothing all the same.
    lies = [
        ([identity_record(friend, labels | cluster2)], 1),
        ([identity_record(LIAR_IDENTITY, labels | cluster2), ip_record(LIAR_ADDRESS, LIAR_IDENTITY)], 2),
        ([identity_record(LIAR_IDENTITY, labels | cluster3 | {f"any:{CLUSTER_LABEL}": "cluster2"})], 2),
        ([identity_record(LIAR_IDENTITY, labels | cluster3 | {"reserved:host": "", "k8s:reserved:host": ""})], 1),
        ([ip_record(LIAR_ADDRESS, friend)], 2),
        *(([ip_record(LIAR_ADDRESS, reserved)], 1) for reserved in (1, 2, 6)),
        ([ip_record(friends_address, LIAR_IDENTITY)], 1),
        ([ip_record(SERVER, LIAR_IDENTITY)], 1),
    ]
    bed.kill_part("cluster3/agent")
    for number, (lie, told) in enumerate(lies):
        marker = f"40.0.1.{number + 200}"
        for key, value in (*lie, ip_record(marker, LIAR_IDENTITY)):
            etcdctl(bed, "cluster3", "put", key, value)
        until(lambda m=marker: asked(bed, f"/v1/ip/{m}")["realised"], "the record behind the lie")  # type: ignore[misc]
        assert who_reaches(bed, {FRIEND}, (FRIEND, LIAR, "cluster2/frontend-1")) == {FRIEND}, lie
        assert refused(bed) >= told, lie
