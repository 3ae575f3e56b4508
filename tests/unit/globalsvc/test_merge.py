import random
from collections.abc import Sequence
from typing import Literal

import msgspec
import pytest

from globalsvc.merge import GlobalService, Place, merge
from wire.local import LocalBackend, LocalService, ServicePort
from wire.records import L4Addr, Service

HERE = Place("cluster1")
GLOBAL = {"io.cilium/global-service": "true"}


def own(
    *addresses: str,
    annotations: dict[str, str] = GLOBAL,
    state: Literal["active", "terminating", "not-ready"] = "active",
    ports: Sequence[ServicePort] = (ServicePort(name="http", port=80),),
    cluster_ips: Sequence[str] = ("30.1.1.1",),
) -> LocalService:
    backends = [LocalBackend(ip=ip, ports={"http": L4Addr("TCP", 8080)}, state=state) for ip in addresses]
    return LocalService(
        namespace="default",
        name="rebel-base",
        annotations=annotations,
        cluster_ips=list(cluster_ips),
        ports=list(ports),
        backends=backends,
    )


def remote(cluster: str, *addresses: str, names: dict[str, L4Addr] | None = None, shared: bool = True) -> Service:
    ports = names or {"http": L4Addr("TCP", 80)}
    backends = dict.fromkeys(addresses, ports)
    return Service(cluster=cluster, namespace="default", name="rebel-base", backends=dict(backends), shared=shared)


def chosen(service: GlobalService | None, frontend: int = 0) -> list[str]:
    assert service is not None
    return [f"{b.cluster} {b.address}:{b.port}" for b in service.frontends[frontend].backends]


def test_backends_of_all_clusters_stand_behind_the_own_cluster_ip() -> None:
    service = merge(own("10.0.0.1", "10.0.0.2"), {"cluster2": remote("cluster2", "20.0.0.2", "20.0.0.1")}, place=HERE)
    assert service is not None
    assert (str(service.frontends[0].address), service.frontends[0].port) == ("30.1.1.1", 80)
    assert chosen(service) == [
        "cluster1 10.0.0.1:8080",
        "cluster1 10.0.0.2:8080",
        "cluster2 20.0.0.1:80",
        "cluster2 20.0.0.2:80",
    ]


@pytest.mark.parametrize("local", [None, own("10.0.0.1", annotations={})])
def test_a_service_that_is_not_global_here_is_not_ours(local: LocalService | None) -> None:
    assert merge(local, {"cluster2": remote("cluster2", "20.0.0.1")}, place=HERE) is None


def test_what_is_not_shared_does_not_count() -> None:
    service = merge(own("10.0.0.1"), {"cluster2": remote("cluster2", "20.0.0.1", shared=False)}, place=HERE)
    assert chosen(service) == ["cluster1 10.0.0.1:8080"]


def test_an_address_of_several_clusters_is_that_of_the_lowest_id_whatever_their_names() -> None:
    numbers = {"alpha": 3, "beta": 2}
    remotes = {
        name: msgspec.structs.replace(remote(name, "20.0.0.1"), cluster_id=number) for name, number in numbers.items()
    }
    assert chosen(merge(own("10.0.0.1"), remotes, place=HERE)) == ["cluster1 10.0.0.1:8080", "beta 20.0.0.1:80"]


def test_backends_that_are_not_ready_are_named_with_the_reason() -> None:
    service = merge(own("10.0.0.1", state="not-ready"), {"cluster2": remote("cluster2", "20.0.0.1")}, place=HERE)
    assert chosen(service) == ["cluster2 20.0.0.1:80"]
    assert service is not None
    assert [(str(c.backend.address), c.choice.used, c.choice.reason) for c in service.frontends[0].candidates] == [
        ("10.0.0.1", False, "not ready"),
        ("20.0.0.1", True, "active"),
    ]


def test_port_names_join_and_unnamed_matches_any() -> None:
    names = {"http": L4Addr("TCP", 80), "web": L4Addr("TCP", 80), "dns": L4Addr("UDP", 53)}
    ports = [
        ServicePort(name="web", port=8000),
        ServicePort(name="other", port=8001),
        ServicePort(name="", port=8002),
        ServicePort(name="dns", port=53, protocol="UDP"),
    ]
    service = merge(own(ports=ports), {"cluster2": remote("cluster2", "20.0.0.1", names=names)}, place=HERE)
    assert chosen(service, 0) == ["cluster2 20.0.0.1:80"]
    assert chosen(service, 1) == []
    assert chosen(service, 2) == ["cluster2 20.0.0.1:80"]
    assert chosen(service, 3) == ["cluster2 20.0.0.1:53"]
    unnamed = remote("cluster2", "20.0.0.1", names={"": L4Addr("TCP", 80)})
    assert chosen(merge(own(ports=ports), {"cluster2": unnamed}, place=HERE), 1) == ["cluster2 20.0.0.1:80"]


def test_families_do_not_mix() -> None:
    records = {"cluster2": remote("cluster2", "20.0.0.1", "fd00::1")}
    service = merge(own(cluster_ips=["30.1.1.1", "fd00:30::1"]), records, place=HERE)
    assert chosen(service, 0) == ["cluster2 20.0.0.1:80"]
    assert chosen(service, 1) == ["cluster2 fd00::1:80"]


def test_the_result_does_not_depend_on_the_order_of_what_is_given() -> None:
    addresses = [f"20.0.{i}.1" for i in range(20)]
    clusters = ["cluster2", "cluster3", "cluster10"]
    expected = merge(own("10.0.0.1"), {c: remote(c, *addresses) for c in clusters}, place=HERE)
    for seed in range(5):
        shuffled = random.Random(seed)
        shuffled.shuffle(addresses)
        shuffled.shuffle(clusters)
        assert merge(own("10.0.0.1"), {c: remote(c, *addresses) for c in clusters}, place=HERE) == expected
