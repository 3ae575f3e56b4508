"""The records against what a real ClusterMesh writer put into etcd (tests/golden)."""

import json
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire import keys
from wire.codec import Scope, decode, decode_cluster_config, encode
from wire.keys import Kind
from wire.labels import format_labels
from wire.records import CIDR, Identity, Node, NodeAddress, Service, value_or

GOLDEN = Path(__file__).parents[2] / "golden" / "cluster1.etcd.jsonl"
SCOPE = Scope("cluster1", 1, range(1 << 16, 2 << 16))


def golden(kind: Kind) -> list[tuple[str, str]]:
    prefix = keys.prefix(kind, "cluster1")
    lines = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
    return [(line["key"].removeprefix(prefix), line["value"]) for line in lines if line["key"].startswith(prefix)]


@pytest.mark.parametrize("kind", [Kind.NODE, Kind.IP, Kind.SERVICE])
def test_a_golden_record_read_and_written_again_is_the_same_json(kind: Kind) -> None:
    records = [(name, value) for name, value in golden(kind) if name != "shop/ext"]
    assert records
    for name, value in records:
        record = decode(kind, name, value.encode(), SCOPE)
        assert isinstance(record, msgspec.Struct)
        assert json.loads(encode(record)) == json.loads(value)


def test_a_golden_identity_read_and_written_again_is_the_same_text() -> None:
    for name, value in golden(Kind.IDENTITY):
        identity = decode(Kind.IDENTITY, name, value.encode(), SCOPE)
        assert isinstance(identity, Identity)
        assert (str(identity.number), format_labels(identity.labels)) == (name, value)


def test_the_golden_cluster_config_is_read() -> None:
    lines = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
    value = next(line["value"] for line in lines if line["key"] == keys.cluster_config("cluster1"))
    config = decode_cluster_config(value.encode())
    assert config.id == 1
    assert config.capabilities.synced_canaries is True
    assert config.capabilities.max_connected_clusters == 255
    assert json.loads(encode(config)) == json.loads(value)


def test_the_golden_keys_are_where_we_would_put_them() -> None:
    for line in map(json.loads, GOLDEN.read_text().splitlines()):
        key = line["key"]
        if "endpointslices" in key or "serviceexports" in key:
            continue  # tolerated, never published
        if key.startswith(keys.SYNCED_PREFIX):
            assert key in [keys.canary(kind, "cluster1") for kind in keys.SHARED_KINDS]
        elif key != keys.cluster_config("cluster1"):
            parsed = keys.parse(key)
            assert keys.record(parsed.kind, "cluster1", parsed.name) == key


def test_real_readers_reject_the_frontend_without_address_and_so_do_we() -> None:
    value = dict(golden(Kind.SERVICE))["shop/ext"]
    with pytest.raises(ValueError, match="not an IP address"):
        decode(Kind.SERVICE, "shop/ext", value.encode(), SCOPE)


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        ([("ExternalIP", "203.0.113.1"), ("InternalIP", "172.18.0.1")], "172.18.0.1"),
        ([("CiliumInternalIP", "10.0.0.1"), ("ExternalIP", "203.0.113.1")], "203.0.113.1"),
        ([("Hostname", "node-1"), ("Other", "192.0.2.1")], "192.0.2.1"),
        ([("CiliumInternalIP", "10.0.0.1")], None),
        ([("InternalIP", "fd00::1")], None),
    ],
)
def test_node_ip(addresses: list[tuple[str, str]], expected: str | None) -> None:
    node = Node(addresses=[NodeAddress(kind, ip) for kind, ip in addresses])
    address = node.node_ip(4)
    assert (str(address) if address else None) == expected


@given(st.ip_addresses(), st.integers(0, 128))
def test_a_cidr_survives_its_wire_form(address: Any, length: int) -> None:
    network = ip_network((address, min(length, address.max_prefixlen)), strict=False)
    assert CIDR.of(network).network() == network


@pytest.mark.parametrize("mask", [None, "", "////", "/////w", "AP8A/w==", "not base64"])
def test_a_mask_that_is_none_is_named(mask: str | None) -> None:
    with pytest.raises(ValueError, match="mask"):
        CIDR("10.0.0.0", mask).network()


def test_fields_of_newer_writers_are_ignored_and_missing_ones_have_their_zero() -> None:
    service = msgspec.json.decode(b'{"name":"a","future":[1]}', type=Service)
    assert service.name == "a"
    assert value_or(service.zones, {}) == {}
    assert service.shared is False
