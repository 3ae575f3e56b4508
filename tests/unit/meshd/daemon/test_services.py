"""Services to entries: incremental equals full, and what a restart finds is kept until its cluster was heard."""

from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from globalsvc.backend import Backend
from globalsvc.merge import Frontend, GlobalService
from meshd.daemon import services
from meshd.daemon.backends import Endpoint
from meshd.daemon.restoration import restore
from meshd.daemon.services import Services
from meshd.daemon.wishes import Wishes
from tests.support.kernel import FakeMaps

Model = dict[str, dict[str, list[int]]]
"""Service → frontend → hosts of its backends."""


class World:
    """Services as a dictionary, and the maps that follow."""

    def __init__(self) -> None:
        self.model: Model = {}
        self.services = Services(self.merge)
        self.maps = FakeMaps()

    def merge(self, name: str) -> GlobalService | None:
        if name not in self.model:
            return None
        return GlobalService(name, tuple(_frontend(*item) for item in self.model[name].items()), ())

    def set(self, name: str, frontends: dict[str, list[int]] | None) -> None:
        self.model.pop(name, None)
        if frontends is not None:
            self.model[name] = frontends
        self.write(self.services.update([name]))

    def write(self, wishes: Wishes) -> None:
        for (map, key), value in wishes.items():
            if value is not None:
                self.maps.upsert(map, {key: value})
        for (map, key), value in wishes.items():
            if value is None:
                self.maps.delete(map, [key])

    def seen(self) -> dict[str, list[str]]:
        """Frontends with their backends, in slot order, as the kernel would see them."""
        frontends = restore(self.maps.content, max_clusters=255).services.frontends
        return {str(key[0]): sorted(str(backend[0]) for backend in backends) for key, backends in frontends.items()}

    def entries(self) -> int:
        return sum(len(entries) for name, entries in self.maps.content.items() if name != "md_numbers")

    def restarted(self) -> "World":
        """A new process on the same maps and model, that has not heard anything yet."""
        world = World()
        world.model, world.maps = self.model, self.maps
        world.services.restore(restore(self.maps.content, max_clusters=255).services)
        return world


def _frontend(address: str, hosts: list[int]) -> Frontend:
    backends = tuple(Backend(IPv4Address(f"10.0.0.{host}"), 8080, "TCP", "c") for host in hosts)
    return Frontend(ip_address(address), 80, "TCP", "", backends)


FRONTENDS = st.dictionaries(
    st.sampled_from(["30.1.1.1", "30.1.1.2", "30.1.1.3"]), st.lists(st.integers(1, 5), unique=True, max_size=4)
)
HISTORY = st.lists(st.tuples(st.sampled_from(["ns/a", "ns/b", "ns/c"]), st.none() | FRONTENDS), max_size=25)


History = list[tuple[str, dict[str, list[int]] | None]]


@given(HISTORY)
def test_any_history_ends_as_if_all_had_been_said_at_once(
    history: History,
) -> None:
    world = World()
    for name, frontends in history:
        world.set(name, frontends)
    full = World()
    full.model = world.model
    full.write(full.services.update(sorted(full.model)))
    assert world.seen() == full.seen()
    assert world.entries() == full.entries()  # nothing is left behind either


@given(HISTORY)
def test_a_restart_with_nothing_changed_wishes_what_is_there(
    history: History,
) -> None:
    world = World()
    for name, frontends in history:
        world.set(name, frontends)
    again = world.restarted()
    wishes = again.services.update(sorted(again.model))
    again.services.retain(lambda endpoint: False)
    assert {item: value for item, value in wishes.items() if again.maps.content[item[0]].get(item[1]) != value} == {}


def test_a_number_that_was_freed_before_a_restart_is_not_used_after_it() -> None:
    world = World()
    world.set("ns/a", {"30.1.1.1": [1, 2]})
    gone = set(world.maps.content["md_be4"])
    world.set("ns/a", {"30.1.1.1": [1]})
    gone -= set(world.maps.content["md_be4"])
    again = world.restarted()
    again.set("ns/a", {"30.1.1.1": [1, 3, 4]})
    assert len(again.maps.content["md_be4"]) == 3
    assert gone.isdisjoint(again.maps.content["md_be4"])


def test_backends_of_a_cluster_that_was_not_heard_yet_are_kept_behind_their_frontend() -> None:
    world = World()
    world.set("ns/a", {"30.1.1.1": [1, 2]})
    again = world.restarted()
    again.set("ns/a", {"30.1.1.1": [1, 3]})  # the own cluster was heard, the one of 2 was not
    assert again.seen() == {"30.1.1.1": ["10.0.0.1", "10.0.0.2", "10.0.0.3"]}
    assert again.services.retained == 2
    again.write(again.services.retain(lambda endpoint: False))
    assert again.seen() == {"30.1.1.1": ["10.0.0.1", "10.0.0.3"]}
    assert again.services.retained == 0
    assert len(again.maps.content["md_be4"]) == 2


def test_only_those_that_may_stay_are_retained() -> None:
    world = World()
    world.set("ns/a", {"30.1.1.1": [1, 2]})
    again = world.restarted()
    again.set("ns/a", {"30.1.1.1": []})
    again.write(again.services.retain(lambda endpoint: _host(endpoint) == "10.0.0.2"))
    assert again.seen() == {"30.1.1.1": ["10.0.0.2"]}


def test_a_frontend_does_without_what_the_kernel_cannot_take_and_frees_what_left() -> None:
    world = World()
    world.set("ns/a", {"30.1.1.1": [1, 2]})
    refused = frozenset({_endpoint(3)})
    world.write(world.services.refuse(refused))
    world.set("ns/a", {"30.1.1.1": [1, 3]})
    assert world.seen() == {"30.1.1.1": ["10.0.0.1"]}
    assert len(world.maps.content["md_be4"]) == 2  # that of 3 is wanted all the same
    world.write(world.services.refuse(frozenset()))
    assert world.seen() == {"30.1.1.1": ["10.0.0.1", "10.0.0.3"]}
    world.write(world.services.refuse(refused))
    world.set("ns/a", None)
    assert world.entries() == 0


@given(st.lists(st.tuples(st.sampled_from(["ns/a", "ns/b"]), st.none() | FRONTENDS, st.sets(st.integers(1, 5)))))
def test_whatever_was_refused_on_the_way_all_is_there_in_the_end(
    history: list[tuple[str, dict[str, list[int]] | None, set[int]]],
) -> None:
    world = World()
    for name, frontends, refused in history:
        world.write(world.services.refuse(frozenset(map(_endpoint, refused))))
        world.set(name, frontends)
        missing = {f"10.0.0.{host}" for host in refused}
        assert all(missing.isdisjoint(hosts) for hosts in world.seen().values())
    world.write(world.services.refuse(frozenset()))
    full = World()
    full.model = world.model
    full.write(full.services.update(sorted(full.model)))
    assert world.seen() == full.seen()
    assert world.entries() == full.entries()


def _endpoint(host: int) -> Endpoint:
    return ip_address(f"10.0.0.{host}"), 8080, 6


def test_more_backends_than_slots_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "MAX_SLOTS", 2)
    world = World()
    world.set("ns/a", {"30.1.1.1": [1, 2, 3]})
    assert world.seen() == {"30.1.1.1": ["10.0.0.1", "10.0.0.2"]}
    (problem,) = world.services.with_problems["ns/a"]
    assert "2 slots" in problem
    world.set("ns/a", {"30.1.1.1": [1, 3]})
    assert world.seen() == {"30.1.1.1": ["10.0.0.1", "10.0.0.3"]}
    assert not world.services.with_problems


def test_a_service_without_backends_has_a_frontend_that_refuses() -> None:
    world = World()
    world.set("ns/a", {"30.1.1.1": []})
    assert world.seen() == {"30.1.1.1": []}


def _host(endpoint: Endpoint) -> str:
    return str(endpoint[0])
