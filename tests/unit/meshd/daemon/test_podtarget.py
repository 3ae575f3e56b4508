"""The target of a node's pods, on the strict fake of the maps."""

import sys
from ipaddress import ip_address

import pytest

from datapath.interface import Interface, InterfaceError
from meshd.daemon.mesh import PODS
from meshd.daemon.podtarget import PodShape, PodTarget
from meshd.reconcile.delta import Round, Step
from meshd.reconcile.execution import execute
from meshd.reconcile.target import TargetError
from tests.support.kernel import FakeInterfaces, FakeMaps

POD = ip_address("10.0.0.1")
IDENTITY = (65537).to_bytes(4, sys.byteorder)
FRONTEND = ip_address("30.1.1.1"), 80, 6


@pytest.fixture
def interfaces() -> FakeInterfaces:
    made = FakeInterfaces()
    made.add(POD, 7)
    return made


def pods(maps: FakeMaps, interfaces: FakeInterfaces) -> PodTarget:
    return PodTarget(maps, find=interfaces.find, attach=interfaces.attach, police=interfaces.police)


def test_a_pod_gets_program_and_entry(interfaces: FakeInterfaces) -> None:
    maps = FakeMaps()
    pods(maps, interfaces).upsert(PODS, {POD.packed: IDENTITY})
    assert interfaces.attached == [7]
    assert len(maps.content["md_endpoint"]) == 1


def test_a_pod_without_interface_is_an_error_until_it_is_there() -> None:
    maps, interfaces = FakeMaps(), FakeInterfaces()
    target = pods(maps, interfaces)
    with pytest.raises(TargetError, match=r"pod 10\.0\.0\.1 has no interface"):
        target.upsert(PODS, {POD.packed: IDENTITY})
    interfaces.add(POD, 7)
    target.upsert(PODS, {POD.packed: IDENTITY})
    assert len(maps.content["md_endpoint"]) == 1


def test_a_restart_writes_nothing_but_another_interface_is_noticed(interfaces: FakeInterfaces) -> None:
    maps = FakeMaps()
    pods(maps, interfaces).upsert(PODS, {POD.packed: IDENTITY})
    again = pods(maps, interfaces)
    assert again.dump(PODS) == {POD.packed: b""}
    again.upsert(PODS, {POD.packed: IDENTITY})
    assert again.writes == 0
    interfaces.add(POD, 8)
    again.upsert(PODS, {POD.packed: IDENTITY})
    assert again.writes == 1


def test_a_pod_is_lost_with_its_interface(interfaces: FakeInterfaces) -> None:
    target = pods(FakeMaps(), interfaces)
    target.upsert(PODS, {POD.packed: IDENTITY})
    assert target.lost({7, 8}) == []
    assert target.lost({8}) == [POD.packed]


def test_a_pod_without_an_interface_of_its_own_is_the_stacks_until_it_has_one(interfaces: FakeInterfaces) -> None:
    maps = FakeMaps()
    target = pods(maps, interfaces)
    target.upsert(PODS, {POD.packed: IDENTITY})
    interfaces.shared[POD] = "it is behind the macvlan device mv0"
    target.upsert(PODS, {POD.packed: IDENTITY})
    assert not maps.content["md_endpoint"]
    assert target.without == {POD.packed: "it is behind the macvlan device mv0"}
    assert target.lost({7}) == [POD.packed], "looked at again when interfaces come"
    del interfaces.shared[POD]
    target.upsert(PODS, {POD.packed: IDENTITY})
    assert len(maps.content["md_endpoint"]) == 1
    assert target.without == {}
    interfaces.shared[POD] = "again"
    target.upsert(PODS, {POD.packed: IDENTITY})
    target.delete(PODS, [POD.packed])
    assert target.without == {}


@pytest.mark.parametrize("address", ["10.0.0.1", "fd00::1"])
def test_a_pod_that_is_gone_leaves_no_entry(address: str) -> None:
    maps, interfaces = FakeMaps(), FakeInterfaces()
    interfaces.add(ip_address(address), 7)
    target = pods(maps, interfaces)
    target.upsert(PODS, {ip_address(address).packed: IDENTITY})
    assert list(pods(maps, interfaces).dump(PODS)) == [ip_address(address).packed]
    target.delete(PODS, [ip_address(address).packed])
    assert not maps.content["md_endpoint"]


def test_a_question_that_the_kernel_refuses_costs_one_pod_one_try() -> None:
    def find(address: object) -> Interface | None:
        raise InterfaceError("netlink, about 10.0.0.1: (22, 'Invalid argument')")

    fakes = FakeInterfaces()
    target = PodTarget(FakeMaps(), find=find, attach=fakes.attach, police=fakes.police)
    with pytest.raises(TargetError, match="Invalid argument"):
        target.upsert(PODS, {POD.packed: IDENTITY})


@pytest.mark.parametrize(("map", "policed"), [("md_endpoint", b""), ("md_iface", b"\1")])
def test_a_pod_for_which_a_map_has_no_room_fails_alone(interfaces: FakeInterfaces, map: str, policed: bytes) -> None:
    maps = FakeMaps(sizes={map: 1})
    other = ip_address("10.0.0.2")
    interfaces.add(other, 8)
    items = {POD.packed: IDENTITY + policed, other.packed: IDENTITY + policed}
    step = Step(0, PODS, items)
    outcome = execute(Round((step,), ()), pods(maps, interfaces), PodShape(), {}, {})
    assert outcome.done == {PODS: {POD.packed: items[POD.packed]}}
    assert outcome.failed == {(PODS, other.packed): f"upsert {map}: the map is full"}
