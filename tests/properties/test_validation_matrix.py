"""The wire contract's § 1.4, row by row and in any mixture: what an independent reader refuses, written from the
contract alone, we refuse; what it takes we take, but where we are stricter on purpose.
"""

import base64
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from identity.numbering import identity_range
from meshd.daemon.members import IdTaken, Members
from tests.support import strict_validation as strict
from wire.codec import BadRecord, Scope, decode, decode_cluster_config
from wire.keys import Kind
from wire.labels import CLUSTER_LABEL
from wire.records import value_or

SCOPE = Scope("cluster2", 2, identity_range(2))
PEER = strict.Peer("cluster2", 2)
TEXTS = ["", "cluster1", "cluster2", "n1", "web", "default", "20.0.0.1", "20.0.0.300", "fd00::1", "FD00::0001"]
NUMBERS = [-1, 0, 1, 2, 3, 255, 256, 65537, 131071, 131072, 196607, 196608, 1 << 40]
ODD: list[Any] = [*TEXTS, *NUMBERS, True, [], {}, 1.5]
MASKS = [base64.b64encode(bytes(mask)).decode() for mask in ([255, 255, 255, 0], [255, 0, 255, 0], [255] * 16, [])]
CIDRS = [{"IP": ip, "Mask": mask} for ip in ("20.0.0.0", "fd00::", "x") for mask in [*MASKS, "?"]]
PORTS: list[Any] = [{"http": {"Protocol": "TCP", "Port": port}} for port in (80, 70000, -1, "80")] + [{"": None}, {}, 7]

NODE = {"Name": "n1", "Cluster": "cluster2", "ClusterID": 2, "IPAddresses": [{"Type": "InternalIP", "IP": "1.2.3.4"}]}
SERVICE = {"cluster": "cluster2", "namespace": "default", "name": "web", "clusterID": 2, "shared": True}
IP = {"IP": "20.0.0.1", "Mask": None, "HostIP": "172.18.2.11", "ID": 131073}
CHECKS = {Kind.NODE: strict.check_node, Kind.SERVICE: strict.check_service, Kind.IP: strict.check_ip}


def odd(fields: dict[str, list[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the fields with another value than is right."""
    one = st.one_of([st.tuples(st.just(name), st.sampled_from([*more, *ODD])) for name, more in fields.items()])
    return st.lists(one, max_size=2).map(dict)


def verdicts(kind: Kind, name: str, document: object) -> tuple[bool, bool]:
    """Do we take it, does the strict reader?"""
    value = json.dumps(document).encode()
    try:
        decode(kind, name, value, SCOPE)
        ours = True
    except BadRecord:
        ours = False
    try:
        CHECKS[kind](name, value, PEER)
        strictly = True
    except (strict.Invalid, strict.Crash):
        strictly = False
    return ours, strictly


@given(st.sampled_from(["n1", "", "web"]), odd({"Name": [], "Cluster": [], "ClusterID": [], "IPv4AllocCIDR": CIDRS}))
def test_nodes(name: str, changed: dict[str, Any]) -> None:
    ours, strictly = verdicts(Kind.NODE, name, NODE | changed)
    a_prefix_that_is_none = changed.get("IPv4AllocCIDR") in [*CIDRS, {}]
    assert ours == strictly or (strictly and a_prefix_that_is_none)


@given(
    st.sampled_from(["default/web", "default/", "/web", "web"]),
    odd(
        {"cluster": [], "namespace": [], "name": [], "clusterID": [], "shared": []}
        | {field: [{address: ports} for address in TEXTS for ports in PORTS] for field in ("frontends", "backends")}
    ),
)
def test_services(name: str, changed: dict[str, Any]) -> None:
    ours, strictly = verdicts(Kind.SERVICE, name, SERVICE | changed)
    assert ours == strictly


@given(
    st.sampled_from(["20.0.0.1", "20.0.0.0/24", "20.0.0.1/24", "fd00::1", "FD00::0001", ""]),
    odd({"IP": ["20.0.0.0"], "Mask": MASKS, "HostIP": [], "ID": [], "NamedPorts": []}),
)
def test_addresses(name: str, changed: dict[str, Any]) -> None:
    ours, strictly = verdicts(Kind.IP, name, IP | changed)
    # A prefix with host bits, an identity below all, a mask that is there and empty.
    is_odd = name == "20.0.0.1/24" or changed.get("ID") == -1 or changed.get("Mask") == ""
    assert ours == strictly or (strictly and is_odd)


OTHERS = [f"k8s:{CLUSTER_LABEL}=cluster1", f"any:{CLUSTER_LABEL}=cluster2", "k8s:app=a", "k8s:app=", "app", ""]


@given(
    st.sampled_from(["131073", "0131073", "+131073", "131072", "196607", "196608", "131071", "1", "x", "", "1" * 30]),
    st.lists(st.sampled_from([f"k8s:{CLUSTER_LABEL}=cluster2", *OTHERS]), max_size=3),
)
def test_identities(name: str, labels: list[str]) -> None:
    value = "".join(f"{label};" for label in labels).encode()
    try:
        strict.check_identity(f"/{name}", value, PEER)
        strictly = True
    except (strict.Invalid, strict.Crash):
        strictly = False
    try:
        decode(Kind.IDENTITY, name, value, SCOPE)
        ours = True
    except BadRecord:
        ours = False
    assert ours == (strictly and name != "0131073")  # none has two names


@given(
    st.sampled_from([0, 1, 2, 3, 255, 256, 511, 512, -1, "2", 2.5, True]),
    st.fixed_dictionaries(
        {},
        optional={
            "maxConnectedClusters": st.sampled_from([0, 255, 511]),
            "endpointSlicesExportMode": st.sampled_from(
                ["", "services-and-endpointslices", "endpointslices-only", "services", 1]
            ),
            "syncedCanaries": st.sampled_from([True, False, 1]),
            "serviceExportsEnabled": st.sampled_from([None, True, False]),
        },
    ),
    st.sampled_from([255, 511]),
)
def test_cluster_configs(number: object, capabilities: dict[str, object], size: int) -> None:
    """ID 1 is ours, 3 is another cluster's."""
    value = json.dumps({"id": number, "capabilities": capabilities, "newer": [1]}).encode()
    members = Members("cluster1", 1, max_clusters=size)
    members.join("cluster3", 3)
    try:
        config = decode_cluster_config(value)
        members.agree(value_or(config.capabilities.max_connected_clusters, 0))
        members.join("cluster2", config.id)
        ours = True
    except (BadRecord, IdTaken):
        ours = False
    try:
        strict.check_config(value, "cluster2", own_id=1, used=frozenset({3}), max_clusters=size)
        strict.wants_canaries(value)
        strictly = True
    except strict.Invalid:
        strictly = False
    assert ours == strictly
