import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wire.codec import MAX_VALUE, BadRecord, Scope, decode, decode_cluster_config
from wire.keys import Kind
from wire.labels import format_labels, parse_labels
from wire.records import Label, Service

SCOPE = Scope("cluster2", 2, range(2 << 16, 3 << 16))
NODE = {"Name": "n", "Cluster": "cluster2", "ClusterID": 2}
SERVICE: dict[str, Any] = {
    "cluster": "cluster2",
    "namespace": "default",
    "name": "web",
    "clusterID": 2,
    "shared": True,
    "backends": {"20.0.0.1": {"http": {"Protocol": "TCP", "Port": 80}}},
}
IP = {"IP": "20.0.0.1", "Mask": None, "HostIP": "172.18.2.11", "ID": 131073}
LABELS = "k8s:io.cilium.k8s.policy.cluster=cluster2;k8s:name=a;"


def reason(kind: Kind, name: str, value: object) -> str:
    raw = (
        value if isinstance(value, bytes) else value.encode() if isinstance(value, str) else json.dumps(value).encode()
    )
    with pytest.raises(BadRecord) as error:
        decode(kind, name, raw, SCOPE)
    return error.value.reason


@pytest.mark.parametrize(
    ("kind", "name", "value", "expected"),
    [
        (Kind.NODE, "n", b"\xff{", "not-json"),
        (Kind.NODE, "n", [], "wrong-type"),
        (Kind.NODE, "n", NODE | {"Name": "m"}, "key-mismatch"),
        (Kind.NODE, "", NODE | {"Name": ""}, "key-mismatch"),
        (Kind.SERVICE, "/web", SERVICE | {"namespace": ""}, "key-mismatch"),
        (Kind.NODE, "n", NODE | {"Cluster": "cluster3"}, "wrong-cluster"),
        (Kind.NODE, "n", NODE | {"ClusterID": 3}, "wrong-cluster-id"),
        (Kind.NODE, "n", NODE | {"IPv4AllocCIDR": {"IP": "10.0.0.0", "Mask": "x"}}, "invalid-ip"),
        (Kind.SERVICE, "default/web", SERVICE | {"cluster": "cluster1"}, "wrong-cluster"),
        (Kind.SERVICE, "default/other", SERVICE, "key-mismatch"),
        (Kind.SERVICE, "default/web", SERVICE | {"backends": {"20.0.0.256": {}}}, "invalid-ip"),
        (Kind.SERVICE, "default/web", SERVICE | {"backends": {"20.0.0.2": {"": None}}}, "wrong-type"),
        (Kind.SERVICE, "default/web", SERVICE | {"backends": {"20.0.0.2": {"": {"Port": 70000}}}}, "invalid-port"),
        (Kind.IDENTITY, "131073x", LABELS, "key-mismatch"),
        (Kind.IDENTITY, "0131073", LABELS, "key-mismatch"),
        (Kind.IDENTITY, "", LABELS, "key-mismatch"),
        (Kind.IDENTITY, "131073", "", "wrong-cluster"),
        (Kind.IDENTITY, "65537", LABELS, "identity-out-of-range"),
        (Kind.IDENTITY, "2", LABELS, "identity-out-of-range"),
        (Kind.IDENTITY, "131073", "k8s:name=a;", "wrong-cluster"),
        (Kind.IDENTITY, "131073", LABELS.replace("k8s:io", "any:io"), "wrong-cluster"),
        (Kind.IDENTITY, "131073", LABELS + "k8s:io.cilium.k8s.policy.cluster=cluster1;", "wrong-cluster"),
        (Kind.IDENTITY, "131073", b"\xff", "invalid-labels"),
        (Kind.IP, "20.0.0.2", IP, "key-mismatch"),
        (Kind.IP, "20.0.0.0/24", IP | {"Mask": "////AA=="}, "invalid-ip"),
        (Kind.IP, "20.0.0.1/24", IP | {"Mask": "////AA=="}, "invalid-ip"),
        (Kind.IP, "20.0.0.1", IP | {"ID": 65537}, "identity-out-of-range"),
        (Kind.IP, "20.0.0.1", IP | {"ID": -1}, "identity-out-of-range"),
        (Kind.IP, "20.0.0.1", IP | {"IP": "20.0.0"}, "invalid-ip"),
        (Kind.IP, "20.0.0.1", IP | {"HostIP": "node-1"}, "invalid-ip"),
        (Kind.IP, "20.0.0.1", b" " * (MAX_VALUE + 1), "too-large"),
    ],
)
def test_what_cannot_be_used_has_a_reason(kind: Kind, name: str, value: object, expected: str) -> None:
    assert reason(kind, name, value) == expected


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (Kind.NODE, "n", json.dumps(NODE)),
        (Kind.SERVICE, "default/web", json.dumps(SERVICE)),
        (Kind.IDENTITY, "131073", LABELS),
        (Kind.IP, "20.0.0.1", json.dumps(IP)),
        (Kind.IP, "20.0.0.0/24", json.dumps(IP | {"IP": "20.0.0.0", "Mask": "////AA=="})),
        (Kind.IP, "20.0.0.1", json.dumps(IP | {"ID": 6})),
        (Kind.IP, "fd00::1", json.dumps(IP | {"IP": "fd00::1"})),
        (Kind.LOCAL_SERVICE, "default/web", '{"namespace":"default","name":"web"}'),
        (Kind.ALLOCATION, "131073", '{"labels":"k8s:a=b;"}'),
        (Kind.POLICY, "k8s/default/p", '{"podSelector":{}}'),
    ],
)
def test_what_is_right_is_accepted(kind: Kind, name: str, value: str) -> None:
    assert decode(kind, name, value.encode(), SCOPE) is not None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)
FIELDS = ["Name", "Cluster", "ClusterID", "IPv4AllocCIDR", "backends", "cluster", "IP", "Mask", "HostIP", "ID", "name"]


@given(st.sampled_from(Kind), st.text(max_size=20), st.binary(max_size=80))
@example(Kind.NODE, "n", b"[" * 5000)
def test_any_bytes_cost_one_record_and_raise_nothing_else(kind: Kind, name: str, value: bytes) -> None:
    with suppress(BadRecord):
        decode(kind, name, value, SCOPE)


@given(st.sampled_from(Kind), st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=8))
def test_any_json_costs_one_record_and_raises_nothing_else(kind: Kind, fields: dict[str, object]) -> None:
    for name, base in (("n", NODE), ("default/web", SERVICE), ("20.0.0.1", IP)):
        with suppress(BadRecord):
            decode(kind, name, json.dumps(base | fields).encode(), SCOPE)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'{"id":2,"capabilities":{"endpointSlicesExportMode":"other"}}', "unknown-mode"),
        (b'{"id":"2"}', "wrong-type"),
        (b"{", "not-json"),
    ],
)
def test_a_cluster_config_that_cannot_be_used_has_a_reason(value: bytes, expected: str) -> None:
    with pytest.raises(BadRecord) as error:
        decode_cluster_config(value)
    assert error.value.reason == expected


words = st.text(st.characters(exclude_characters=";", exclude_categories=["Cs"]), max_size=10)
label_keys = st.text(st.characters(exclude_characters=";=:", exclude_categories=["Cs"]), min_size=1, max_size=10)


@given(st.sets(st.builds(Label, key=label_keys, value=words, source=st.sampled_from(["k8s", "any", "reserved"]))))
def test_labels_survive_their_text(labels: set[Label]) -> None:
    text = format_labels(labels)
    assert set(parse_labels(text)) == labels
    assert format_labels(parse_labels(text)) == text


def test_labels_may_hold_signs_and_lack_a_value() -> None:
    assert parse_labels("k8s:app=a=b:c;k8s:novalue=;plain=x") == (
        Label("app", "a=b:c"),
        Label("novalue", ""),
        Label("plain", "x", "unspec"),
    )
    with pytest.raises(ValueError, match="no key"):
        parse_labels("k8s:=x;")


@pytest.mark.parametrize(("name", "is_kept"), [("http", True), ("h" * 64, False)])
def test_equal_ports_are_kept_once_unless_a_peer_makes_them_longer_than_any_are(name: str, is_kept: bool) -> None:
    fields: dict[str, Any] = {"cluster": "cluster2", "clusterID": 2, "namespace": "ns", "name": "s"}
    fields["backends"] = {f"20.0.0.{n}": {name: {"Protocol": "TCP", "Port": 80}} for n in (1, 2)}
    service = decode(Kind.SERVICE, "ns/s", json.dumps(fields).encode(), SCOPE)
    assert isinstance(service, Service)
    one, other = (service.backends or {}).values()
    assert one == other
    assert (one is other) is is_kept


@pytest.mark.parametrize(("value", "is_kept"), [("v" * 63, True), ("v" * 321, False)])
def test_equal_labels_are_kept_once_unless_they_are_longer_than_any_are(value: str, is_kept: bool) -> None:
    (one,), (other,) = (parse_labels(f"k8s:key={value};") for _ in range(2))
    assert one == other
    assert (one is other) is is_kept
