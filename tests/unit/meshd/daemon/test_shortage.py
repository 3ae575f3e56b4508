"""Maps without room: what is missing shuts, and never opens."""

from ipaddress import ip_address
from typing import Any

import pytest

from datapath.entries import ipcache_entry
from tests.support.desk import FAR, FRIEND, POD, Desk, ready
from tests.support.kernel import FakeMaps
from wire.labels import CLUSTER_LABEL

DENY = {"fromEndpoints": [{"matchLabels": {"app": "friend", CLUSTER_LABEL: "cluster2"}}]}
ALLOW: dict[str, Any] = {"fromEntities": ["all"]}
NETWORKS = {"fromCIDRSet": [{"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}]}


def desk_with(room: int, spec: dict[str, Any], *, map: str = "md_policy") -> Desk:
    desk = ready(maps=FakeMaps(sizes={map: room}))
    desk.rules(spec)
    return desk


def shut(desk: Desk) -> dict[object, object]:
    return {fact["identity"]: fact["shut"] for fact in desk.held("md_subject")}


@pytest.mark.parametrize("room", range(4))
def test_a_denial_without_room_shuts_and_an_allowance_does_not(room: int) -> None:
    desk = desk_with(room, {"ingress": [ALLOW], "ingressDeny": [DENY]})
    desk.work()
    denied = any(fact["peer"] == FAR and not fact["allowed"] for fact in desk.held("md_policy"))
    assert len(desk.held("md_policy")) == min(room, 3)
    assert shut(desk) == {POD: [] if denied else [0]}
    assert bool(desk.policing.shut) is not denied


def test_it_opens_when_there_is_room_and_shuts_when_there_is_none_again() -> None:
    desk = desk_with(0, {"ingress": [ALLOW], "ingressDeny": [DENY]})
    desk.work()
    assert shut(desk) == {POD: [0]}
    assert isinstance(desk.maps, FakeMaps)
    desk.maps.sizes["md_policy"] = 3
    desk.again()
    assert shut(desk) == {POD: []}
    assert not desk.policing.shut
    desk.rules({"ingress": [ALLOW], "ingressDeny": [DENY, {"fromEndpoints": [{"matchLabels": {"app": "friend"}}]}]})
    desk.work()
    assert FRIEND not in {fact["peer"] for fact in desk.held("md_policy")}
    assert shut(desk) == {POD: [0]}


def test_a_prefix_without_room_shuts_where_prefixes_are_named() -> None:
    desk = desk_with(1, {"ingress": [NETWORKS], "egress": [{"toEndpoints": [{}]}]}, map="md_outside")
    desk.work()
    assert shut(desk) == {POD: [0]}


def test_an_unknown_pod_shuts_where_pods_are_denied() -> None:
    desk = desk_with(10, {"ingress": [ALLOW], "ingressDeny": [DENY], "egressDeny": [{"toCIDR": ["192.0.2.0/24"]}]})
    desk.work()
    assert shut(desk) == {POD: []}
    lost = ipcache_entry(ip_address("20.0.0.1"), identity=FAR, tunnel=None, remote=True)
    desk.lost = [(lost.map, lost.key)]
    desk.work()
    assert shut(desk) == {POD: [0]}
