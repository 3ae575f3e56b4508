"""The independent reader's validation: it is independent, takes what real writers wrote, and refuses line by line."""

import ast
import base64
import json
import sys
from pathlib import Path

import pytest

from tests.support.strict_validation import KINDS, Crash, Invalid, Peer, check_config

ROOT = Path(__file__).parents[2]
PEER = Peer("cluster1", 1)
NODE = {"Name": "n1", "Cluster": "cluster1", "ClusterID": 1}
SERVICE = {"cluster": "cluster1", "clusterID": 1, "namespace": "a", "name": "b", "shared": True}
CLUSTER_LABEL = "k8s:io.cilium.k8s.policy.cluster"


@pytest.mark.parametrize("name", ["strict_reader", "strict_validation"])
def test_nothing_of_ours_is_imported_but_the_stubs(name: str) -> None:
    tree = ast.parse((ROOT / "tests" / "support" / f"{name}.py").read_text())
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    allowed = {"wire.proto.kv_pb2", "wire.proto.rpc_pb2", "tests.support.strict_validation"}
    foreign = {name for name in modules if name.partition(".")[0] not in {*sys.stdlib_module_names, "grpc"}}
    assert foreign <= allowed


def golden() -> list[tuple[str, bytes]]:
    lines = (ROOT / "tests/golden/cluster1.etcd.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    return [
        (one["key"], one["value"].encode() if "value" in one else base64.b64decode(one["value_base64"]))
        for one in entries
    ]


def test_what_a_real_writer_wrote_is_taken() -> None:
    refused, taken = [], 0
    for key, value in golden():
        for start, scope, check in KINDS.values():
            prefix = start + scope.format(cluster="cluster1")
            if key.startswith(prefix):
                try:
                    check(key.removeprefix(prefix), value, PEER)
                    taken += 1
                except Invalid:
                    refused.append(key)
    assert refused == ["cilium/state/services/v1/cluster1/shop/ext"]  # known: an empty frontend address
    assert taken > 20


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("nodes", "n2", NODE),
        ("nodes", "n1", NODE | {"Cluster": "cluster2"}),
        ("nodes", "n1", NODE | {"ClusterID": 2}),
        ("nodes", "n1", NODE | {"IPAddresses": [{"IP": "x"}]}),
        ("nodes", "n1", []),
        ("services", "a/c", SERVICE),
        ("services", "a/b", SERVICE | {"clusterID": 0}),
        ("services", "a/b", SERVICE | {"frontends": {"": {}}}),
        ("services", "a/b", SERVICE | {"backends": {"10.0.0.1": {"http": {"Port": "80"}}}}),
        ("ip", "10.0.0.1", {"IP": "10.0.0.2", "ID": 65537}),
        ("ip", "FD00::1", {"IP": "FD00::1", "ID": 65537}),
        ("ip", "10.0.0.0", {"IP": "10.0.0.0", "Mask": "////AA==", "ID": 65537}),
        ("ip", "10.0.0.1", {"IP": "10.0.0.1", "ID": 2 << 16}),
    ],
)
def test_a_record_that_is_refused(kind: str, name: str, value: object) -> None:
    with pytest.raises(Invalid):
        KINDS[kind][2](name, json.dumps(value).encode(), PEER)


@pytest.mark.parametrize(
    ("suffix", "labels"),
    [
        ("/x", f"{CLUSTER_LABEL}=cluster1;"),
        ("/131072", f"{CLUSTER_LABEL}=cluster1;"),
        ("/2", f"{CLUSTER_LABEL}=cluster1;"),
        ("/65537", ""),
        ("/65537", "k8s:a=b;"),
        ("/65537", f"{CLUSTER_LABEL}=cluster2;"),
        ("/65537", "any:io.cilium.k8s.policy.cluster=cluster1;"),
        ("/65537", f"{CLUSTER_LABEL}=cluster1;any:io.cilium.k8s.policy.cluster=cluster1;"),
    ],
)
def test_an_identity_that_is_refused(suffix: str, labels: str) -> None:
    with pytest.raises(Invalid):
        KINDS["identities"][2](suffix, labels.encode(), PEER)


def test_what_would_crash_a_real_reader() -> None:
    with pytest.raises(Crash):
        KINDS["identities"][2]("", b"x", PEER)
    null_port = SERVICE | {"backends": {"10.0.0.1": {"http": None}}}
    with pytest.raises(Crash):
        KINDS["services"][2]("a/b", json.dumps(null_port).encode(), PEER)


@pytest.mark.parametrize(
    "config", [{}, {"id": 256}, {"id": 200}, {"id": 7}, {"id": 1, "capabilities": {"endpointSlicesExportMode": "x"}}]
)
def test_a_configuration_that_is_refused(config: object) -> None:
    with pytest.raises(Invalid):
        check_config(json.dumps(config).encode(), "cluster1", own_id=200, used=frozenset({7}))


def test_a_host_of_there_is_a_remote_node_here_and_zero_is_allowed() -> None:
    check = KINDS["ip"][2]
    assert check("10.0.0.1", b'{"IP":"10.0.0.1","ID":1}', PEER) == 6
    assert check("10.0.0.1", b'{"ip":"10.0.0.1"}', PEER) == 0
    assert check("10.0.0.0/24", b'{"IP":"10.0.0.0","Mask":"////AA==","ID":65537}', PEER) == 65537
