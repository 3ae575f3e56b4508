"""What the agent publishes of real objects is what a real ClusterMesh writer published of them."""

import json
from pathlib import Path
from typing import Any

import msgspec

from identity.allocation import Allocator
from identity.numbering import identity_range
from meshd.agent.publish.publisher import Publisher
from meshd.agent.publish.scope import Scope
from meshd.agent.sources.documents import parse_file
from meshd.agent.state import Changes, LocalState
from wire import codec, keys
from wire.keys import Kind

GOLDEN = Path(__file__).parents[3] / "golden"
SERVICES = keys.prefix(Kind.SERVICE, "cluster1")
#: Written by the real writer with an empty frontend address, which real readers reject.
NOT_OURS = f"{SERVICES}shop/ext"


def published() -> dict[str, bytes]:
    content = parse_file("golden", (GOLDEN / "cluster1.objects.json").read_bytes())
    assert not content.problems
    state = LocalState()
    publisher = Publisher(Scope(cluster="cluster1", cluster_id=1), state, Allocator(identity_range(1)))
    publisher.mark(state.apply(Changes(content.objects, synced=True)))
    return {key: value for key, value in publisher.compute(1000).items() if value is not None}


def recorded() -> dict[str, str]:
    lines = (GOLDEN / "cluster1.etcd.jsonl").read_text().splitlines()
    entries: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return {entry["key"]: entry["value"] for entry in entries if "value" in entry}


def test_services_equal_the_recorded_ones() -> None:
    services = {key: msgspec.json.decode(value) for key, value in published().items() if key.startswith(SERVICES)}
    expected = {key: json.loads(value) for key, value in recorded().items() if key.startswith(SERVICES)}
    del expected[NOT_OURS]
    assert services == expected


def test_services_have_the_recorded_order_of_fields() -> None:
    services = published()
    for key, value in recorded().items():
        if key.startswith(SERVICES) and key != NOT_OURS:
            assert list(json.loads(services[key])) == list(json.loads(value)), key


def test_every_record_is_accepted_by_our_own_reader() -> None:
    scope = codec.Scope("cluster1", 1, identity_range(1))
    for key, value in published().items():
        parsed = keys.parse(key)
        codec.decode(parsed.kind, parsed.name, value, scope)


def test_local_services_include_those_that_are_not_shared() -> None:
    prefix = keys.prefix(Kind.LOCAL_SERVICE, "cluster1")
    names = {key.removeprefix(prefix) for key in published() if key.startswith(prefix)}
    shared = {key.removeprefix(SERVICES) for key in recorded() if key.startswith(SERVICES)} - {"shop/ext"}
    assert names == shared | {"default/private", "shop/onlylocal"}
