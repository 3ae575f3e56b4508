"""Rounds on faulty maps: it converges, and on the way no entry ever stands without what it needs."""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address

from hypothesis import given, settings
from hypothesis import strategies as st

from datapath.entries import Entry, backend_entry, service_entries
from meshd.daemon.kernel import MapShape, MapTarget
from meshd.reconcile.execution import Outcome, execute
from meshd.reconcile.loop import Reconciler
from tests.support.kernel import FakeMaps, random_faults

SHAPE = MapShape()
Model = dict[int, list[int]]


class WatchfulMaps(FakeMaps):
    """Checks after every operation that everything that stands has what it needs."""

    def upsert(self, map: str, items: Mapping[bytes, bytes]) -> None:
        for key, value in items.items():
            super().upsert(map, {key: value})
            self.check()

    def delete(self, map: str, keys: Iterable[bytes]) -> None:
        for key in keys:
            super().delete(map, [key])
            self.check()

    def check(self) -> None:
        for map in ("md_svc4", "md_be4"):
            for key, value in self.content[map].items():
                for need_map, need_key in SHAPE.needs(map, key, value):
                    assert need_key in self.content[need_map], f"{SHAPE.describe(map, key)} misses {need_key!r}"


def frontend(number: int, backends: list[int]) -> list[Entry]:
    """A frontend with its slots and backends; the number of a backend is its host."""
    found = [backend_entry(host, IPv4Address(f"10.0.0.{host}"), 80, 6) for host in backends]
    return found + service_entries(IPv4Address(f"30.1.1.{number}"), 80, 6, backends)


def wish(reconciler: Reconciler, model: Model) -> None:
    """Desired becomes the model, by the differences."""
    wanted = {(e.map, e.key): e.value for number in model for e in frontend(number, model[number])}
    for map, entries in list(reconciler.delta.desired.items()):
        for key in list(entries):
            if (map, key) not in wanted:
                reconciler.delta.want(map, key, None)
    for (map, key), value in wanted.items():
        reconciler.delta.want(map, key, value)


def work(reconciler: Reconciler, now: float) -> Outcome | None:
    for item in reconciler.retries.due(now):
        reconciler.delta.touch(item)
    round = reconciler.delta.plan()
    outcome = None
    if round is not None:
        outcome = execute(round, reconciler.target, SHAPE, reconciler.delta.realised, reconciler.delta.possible)
        reconciler.record(outcome, now)
    reconciler.settle(now)
    return outcome


MODEL = st.dictionaries(st.integers(1, 3), st.lists(st.integers(1, 5), unique=True, max_size=4), max_size=3)


@given(st.lists(MODEL, min_size=1, max_size=6), st.integers(0, 999))
@settings(max_examples=150)
def test_faulty_maps_converge_and_nothing_stands_without_its_needs(models: list[Model], seed: int) -> None:
    maps = WatchfulMaps()
    reconciler = Reconciler("maps", MapTarget(maps), SHAPE)
    maps.fails = random_faults(seed, share=0.3)
    now = 0.0
    for model in models:
        wish(reconciler, model)
        work(reconciler, now)
        now += 0.15
    maps.fails = lambda op, map, key: False
    for _ in range(20):
        now += 60.0
        work(reconciler, now)
    assert not reconciler.retries.failures
    wanted = {map: entries for map, entries in reconciler.delta.desired.items() if entries}
    assert {map: entries for map, entries in maps.content.items() if entries} == wanted


def test_a_full_map_keeps_what_it_has_and_the_rest_goes_on() -> None:
    maps = WatchfulMaps(sizes={"md_be4": 1})
    reconciler = Reconciler("maps", MapTarget(maps), SHAPE)
    wish(reconciler, {1: [1]})
    work(reconciler, 0.0)
    wish(reconciler, {1: [1], 2: [2], 3: []})
    outcome = work(reconciler, 0.0)
    assert outcome is not None
    reasons = sorted(outcome.failed.values())
    assert reasons[0] == "upsert md_be4: the map is full"
    assert all(reason.startswith("withheld") for reason in reasons[1:])
    assert len(maps.content["md_be4"]) == 1
    assert len(maps.content["md_svc4"]) == 3  # frontend 1 with its slot, and frontend 3
    wish(reconciler, {2: [2], 3: []})
    for now in (60.0, 120.0):
        work(reconciler, now)
    assert not reconciler.retries.failures


def test_a_round_is_one_sentence() -> None:
    reconciler = Reconciler("maps", MapTarget(FakeMaps()), SHAPE)
    wish(reconciler, {1: [1]})
    work(reconciler, 0.0)
    assert reconciler.last_round == "md_be4, md_svc4: 3 upserts, 0 deletes, 0 failed, in sync"
