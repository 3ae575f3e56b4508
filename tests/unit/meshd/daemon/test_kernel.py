"""The targets on the strict fake of the maps."""

import sys
from ipaddress import ip_address

import pytest

from datapath.entries import RANK, backend_entry, service_entries
from meshd.daemon.kernel import MAPS, MapShape, MapTarget
from meshd.reconcile.target import TargetError, TargetFull
from tests.support.kernel import FakeMaps

POD = ip_address("10.0.0.1")
IDENTITY = (65537).to_bytes(4, sys.byteorder)
FRONTEND = ip_address("30.1.1.1"), 80, 6


def test_publish_order_is_backends_slots_frontend() -> None:
    shape = MapShape()
    backend = backend_entry(1, POD, 8080, 6)
    *slots, frontend = service_entries(*FRONTEND, [1, 1])
    ranks = [shape.rank(entry.map, entry.key) for entry in (backend, slots[0], frontend)]
    assert ranks == sorted(set(ranks))
    assert set(MAPS) == set(RANK) - {"md_endpoint"}


def test_a_frontend_needs_its_slots_and_a_slot_its_backend() -> None:
    shape = MapShape()
    backend = backend_entry(1, POD, 8080, 6)
    *slots, frontend = service_entries(*FRONTEND, [1, 1])
    needed = list(shape.needs(frontend.map, frontend.key, frontend.value))
    assert needed == [(slot.map, slot.key) for slot in slots]
    assert list(shape.needs(slots[0].map, slots[0].key, slots[0].value)) == [(backend.map, backend.key)]
    assert list(shape.needs(backend.map, backend.key, backend.value)) == []


def test_the_maps_errors_are_the_reconcilers() -> None:
    maps = FakeMaps(sizes={"md_be4": 1})
    target = MapTarget(maps)
    entries = [backend_entry(number, POD, 8080, 6) for number in (1, 2)]
    with pytest.raises(TargetFull) as full:
        target.upsert("md_be4", {entry.key: entry.value for entry in entries})
    assert full.value.rejected == {entries[1].key}
    maps.fails = lambda op, map, key: True
    with pytest.raises(TargetError, match="md_be4"):
        target.delete("md_be4", [entries[0].key])
