"""The daemon between two real clusters (etcd, proxy, mutual TLS), with a strict fake in the place of the kernel."""

import re
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from datapath.layout import DropReason
from datapath.policylayout import Event
from meshd.daemon.dropcount import DropCount
from meshd.daemon.inspection import Inspection
from meshd.daemon.link import LinkState
from meshd.daemon.program import Daemon
from meshd.daemon.report import Report
from tests.support import records
from tests.support.kernel import random_faults
from tests.support.scene import Scene, until
from tests.support.scene import scene as scene
from wire.keys import HEARTBEAT, Kind, cluster_config, record

pytestmark = pytest.mark.etcd
FRONTEND = "30.1.1.1:80/TCP"
ALL = {"10.0.0.1", "10.0.0.2", "20.0.0.1", "20.0.0.2"}


def link(daemon: Daemon, cluster: str) -> tuple[str, str]:
    """State and reason of a remote's control link."""
    (remote,) = (remote for remote in daemon.remotes() if remote.cluster == cluster)
    return remote.link.state, remote.link.reason


def shown(daemon: Daemon, cluster: str) -> dict[str, object]:
    """The cluster in the status."""
    clusters = Report(daemon).status()["clusters"]
    found: dict[str, object] = next(entry for entry in clusters if entry["cluster"] == cluster)
    return found


async def test_both_clusters_backends_and_addresses_reach_the_maps(scene: Scene) -> None:
    async with scene.daemon() as daemon:
        await until(lambda: not daemon.readiness.missing)
        assert scene.backends() == {FRONTEND: ALL}
        assert scene.reconciled == [{FRONTEND: ALL}]
        assert Report(daemon).status()["state"] == "ok"
        assert set(scene.interfaces.attached) == {7}
        held = {name: len(entries) for name, entries in scene.maps.content.items() if entries}
        del held["md_outside"]  # the addresses of the machine that this test runs on, and of the nodes
        own = {"md_endpoint": 1, "md_cfg": 1, "md_node": 2, "md_numbers": 1}
        assert held == {"md_be4": 4, "md_svc4": 5, "md_ipcache": 3, "md_cidrs": 1, **own}
        assert [str(route) for route in scene.routes.content.values()] == ["20.0.0.0/24 dev 8 src 172.18.1.11"]


async def test_events_arrive_while_it_watches(scene: Scene) -> None:
    async with scene.daemon() as daemon:
        await until(lambda: not daemon.readiness.missing)
        connects = daemon.remotes()[0].connects
        scene.two.etcd.put_all(records.service("cluster2", 2, "default/rebel-base", "20.0.0.3"))
        await until(lambda: scene.backends() == {FRONTEND: {"10.0.0.1", "10.0.0.2", "20.0.0.3"}})
        scene.two.etcd.delete(record(Kind.SERVICE, "cluster2", "default/rebel-base"))
        await until(lambda: scene.backends() == {FRONTEND: {"10.0.0.1", "10.0.0.2"}})
        scene.one.etcd.delete(record(Kind.LOCAL_SERVICE, "cluster1", "default/rebel-base"))
        await until(lambda: not scene.maps.content["md_svc4"] and not scene.maps.content["md_be4"])
        assert daemon.remotes()[0].connects == connects


async def test_a_lost_proxy_takes_nothing_away_and_its_return_brings_what_was_missed(scene: Scene) -> None:
    async with scene.daemon() as daemon:
        await until(lambda: not daemon.readiness.missing)
        writes = len(scene.maps.writes)
        scene.two.kill_proxy()
        await until(lambda: link(daemon, "cluster2")[0] == LinkState.DISCONNECTED)
        assert Report(daemon).status()["state"] == "degraded"
        scene.two.etcd.delete(record(Kind.IP, "cluster2", "20.0.0.1"))
        scene.two.etcd.put_all(records.service("cluster2", 2, "default/rebel-base", "20.0.0.2", "20.0.0.3"))
        scene.two.etcd.compact(scene.two.etcd.put(HEARTBEAT, "again"))
        assert len(scene.maps.writes) == writes
        scene.two.start_proxy()
        await until(lambda: scene.backends() == {FRONTEND: {"10.0.0.1", "10.0.0.2", "20.0.0.2", "20.0.0.3"}})
        await until(lambda: len(scene.maps.content["md_ipcache"]) == 2)
        await until(lambda: link(daemon, "cluster2") == (LinkState.READY, ""))


async def test_another_etcd_behind_the_same_name_is_heard_anew(scene: Scene) -> None:
    async with scene.daemon() as daemon:
        await until(lambda: not daemon.readiness.missing)
        scene.two.stop()
        scene.two.etcd.wipe()
        scene.two.etcd.start()
        scene.two.etcd.put_all(
            records.cluster("cluster2", 2) | records.service("cluster2", 2, "default/rebel-base", "20.0.0.9")
        )
        scene.two.start_proxy()
        await until(lambda: scene.backends() == {FRONTEND: {"10.0.0.1", "10.0.0.2", "20.0.0.9"}})
        await until(lambda: len(scene.maps.content["md_ipcache"]) == 2)


async def test_an_agent_that_is_dead_for_longer_than_its_lease_has_deleted_nothing(scene: Scene) -> None:
    async with scene.daemon() as daemon:
        await until(lambda: not daemon.readiness.missing)
        writes = len(scene.maps.writes)
        said = records.cluster("cluster2", 2)
        for key in said:
            if key != HEARTBEAT:
                scene.two.etcd.delete(key)
        scene.two.etcd.delete(record(Kind.SERVICE, "cluster2", "default/rebel-base"))
        scene.two.etcd.delete(record(Kind.IP, "cluster2", "20.0.0.1"))
        (remote,) = daemon.remotes()
        await until(lambda: remote.waiting_deletes == 2 and "missing" in remote.frozen)
        assert (scene.backends(), len(scene.maps.writes)) == ({FRONTEND: ALL}, writes)
        assert any(f.startswith("cluster2: frozen") for f in Report(daemon).status()["findings"])
        scene.two.kill_proxy()
        await until(lambda: link(daemon, "cluster2")[0] == LinkState.DISCONNECTED)
        scene.two.start_proxy()
        await until(lambda: "is not there" in link(daemon, "cluster2")[1])
        scene.two.etcd.put_all(records.service("cluster2", 2, "default/rebel-base", "20.0.0.2") | said)
        await until(lambda: scene.backends() == {FRONTEND: {"10.0.0.1", "10.0.0.2", "20.0.0.2"}})
        await until(lambda: len(scene.maps.content["md_ipcache"]) == 2)


async def test_a_cluster_that_is_lost_for_too_long_is_withdrawn_until_it_is_heard_again(scene: Scene) -> None:
    file = scene.mesh_folder / "cluster2"
    file.write_text(file.read_text() + "meshd: {stale-after: 0.1s, max-stale: 0.2s}\n")
    async with scene.daemon() as daemon:
        await until(lambda: not daemon.readiness.missing)
        scene.two.kill_proxy()
        await until(lambda: scene.backends() == {FRONTEND: {"10.0.0.1", "10.0.0.2"}})
        await until(lambda: "max-stale" in str(shown(daemon, "cluster2")["presence"]))
        unreachable = "20.0.0.1 identity=131073 tunnel=172.18.2.11 remote=True unreachable=True"
        await until(lambda: [f for f in Report(daemon).realised()["md_ipcache"] if "unreach" in f] == [unreachable])
        scene.two.start_proxy()
        await until(lambda: scene.backends() == {FRONTEND: ALL})
        await until(lambda: "unreachable" not in str(Report(daemon).realised()))


async def test_what_a_peer_may_not_say_is_in_quarantine_and_leaves_with_the_file(scene: Scene) -> None:
    file = scene.mesh_folder / "cluster2"
    plain = file.read_text()
    file.write_text(plain + "meshd: {allowed-cidrs: [20.0.0.1/32], quotas: {ip: {records: 1}}, colour: red}\n")
    scene.two.etcd.put_all(records.ip("cluster2", "20.0.0.2", "172.18.2.11", 131073))
    async with scene.daemon() as daemon:
        await until(lambda: not daemon.readiness.missing)
        assert scene.backends() == {FRONTEND: ALL - {"20.0.0.2"}}
        status = Report(daemon).status()
        assert any("over its quota" in finding for finding in status["findings"]), status["findings"]
        assert "outside-allowed-cidrs" in str(status["findings"])
        assert shown(daemon, "cluster2")["warnings"] == ["unknown key `meshd.colour` is ignored"]
        held = {(entry["kind"], entry["name"]) for entry in Inspection(daemon).quarantine()}
        assert held == {("nodes", "n1"), ("services", "default/rebel-base 20.0.0.2")}
        file.write_text(plain)
        await until(lambda: scene.backends() == {FRONTEND: ALL} and not Inspection(daemon).quarantine())
        await until(lambda: len(scene.maps.content["md_ipcache"]) == 4)


async def test_the_socket_lists_explains_and_tells_what_happened(scene: Scene) -> None:
    async with scene.daemon() as daemon:
        await until(lambda: not daemon.readiness.missing)
        seen = Inspection(daemon)
        assert seen.diff("all") == []
        assert seen.listed("ipcache")["total"] == 4
        assert {row["cluster"] for row in seen.listed("node")["rows"]} == {"cluster1", "cluster2"}
        assert [row["identity"] for row in seen.listed("identity")["rows"]] == [131073]
        scene.two.etcd.put_all(records.ip("cluster2", "10.0.0.1", "172.18.2.11", 131073))
        await until(lambda: seen.quarantine())
        ours, theirs = seen.explain_ip("10.0.0.1")["claims"][:2]
        assert (ours["cluster"], ours["believed"]) == ("cluster1", True)
        assert (theirs["cluster"], theirs["reason"]) == ("cluster2", "own-address")
        near = seen.explain_ip("20.0.0.77")
        assert near["claims"][0]["says"] == "PodCIDR 20.0.0.0/24 of node n1"
        assert near["realised"] == ["20.0.0.0/24 identity=2 tunnel=172.18.2.11 remote=True"]
        assert "is not an IP address" in seen.explain_ip("x")["reason"]
        await until(lambda: seen.events("0")["events"][-1]["event"] == "quarantine")
        (scene.mesh_folder / "cluster2").unlink()
        await until(lambda: seen.events("0")["events"][-1]["event"] == "left")
        told = [event["event"] for event in seen.events("0")["events"] if event["cluster"] == "cluster2"]
        assert [event for event in told if event in ("link ready", "fresh", "quarantine")] == [
            "link ready",
            "fresh",
            "quarantine",
        ]


async def test_bad_records_are_skipped_counted_by_reason_and_shown(scene: Scene) -> None:
    bad = {
        record(Kind.IP, "cluster2", "20.0.0.7"): "not JSON",
        **records.ip("cluster2", "20.0.0.8", "172.18.2.11", 65537),
        record(Kind.IP, "cluster2", "20.0.0.999"): '{"IP":"20.0.0.999","ID":131073}',
        **records.service("cluster2", 9, "default/other", "20.0.0.1"),
        record(Kind.NODE, "cluster2", "n7"): '{"Name":"n7","Cluster":"cluster1","ClusterID":2}',
    }
    scene.two.etcd.put_all(bad)
    async with scene.daemon() as daemon:
        await until(lambda: "remotes-synced" in daemon.readiness.reached)
        kinds = shown(daemon, "cluster2")["kinds"]
        assert isinstance(kinds, dict)
        assert kinds["ip"]["reasons"] == {"not-json": 1, "identity-out-of-range": 1, "invalid-ip": 1}
        assert (kinds["ip"]["offered"], kinds["ip"]["accepted"], kinds["ip"]["rejected"]) == (4, 1, 3)
        assert kinds["services"]["reasons"] == {"wrong-cluster-id": 1}
        assert kinds["nodes"]["last_rejected"]["reason"] == "wrong-cluster"
        await until(lambda: scene.backends() == {FRONTEND: ALL})
        findings = "\n".join(Report(daemon).status()["findings"])
        assert "cluster2: 3 of 4 ip records rejected" in findings
        scene.two.etcd.put_all(records.ip("cluster2", "20.0.0.7", "172.18.2.11", 131073))
        await until(lambda: len(scene.maps.content["md_ipcache"]) == 4)


async def test_a_restart_with_nothing_changed_writes_nothing(scene: Scene) -> None:
    async with scene.daemon() as daemon:
        await until(lambda: not daemon.readiness.missing)
    writes = list(scene.maps.writes)
    async with scene.daemon() as daemon:
        await until(lambda: not daemon.readiness.missing)
        assert daemon.maps.delta.unclaimed() == 0
    assert scene.maps.writes == writes


async def test_a_restart_beside_a_dead_cluster_keeps_what_is_its(scene: Scene) -> None:
    async with scene.daemon() as daemon:
        await until(lambda: not daemon.readiness.missing)
    scene.two.stop()
    async with scene.daemon() as daemon:
        await until(lambda: "local-synced" in daemon.readiness.reached)
        scene.one.etcd.put_all(records.local_service("cluster1", "default/rebel-base", "30.1.1.1", "10.0.0.3"))
        await until(lambda: scene.backends() == {FRONTEND: {"10.0.0.3", "20.0.0.1", "20.0.0.2"}})
        assert len(scene.maps.content["md_ipcache"]) == 3
        assert "remotes-synced" in daemon.readiness.missing
        (scene.mesh_folder / "cluster2").unlink()
        await until(lambda: scene.backends() == {FRONTEND: {"10.0.0.3"}})
        await until(lambda: len(scene.maps.content["md_ipcache"]) == 2)


async def test_faulty_maps_end_as_good_ones(scene: Scene) -> None:
    scene.maps.fails = random_faults(1, share=0.3)
    async with scene.daemon() as daemon:
        await until(lambda: not daemon.readiness.missing)
        assert scene.backends() == {FRONTEND: ALL}


async def test_ready_means_with_the_backends_whose_first_write_failed(scene: Scene) -> None:
    failed = set()

    def first_time(op: str, map: str, key: bytes) -> bool:
        if map != "md_be4" or key in failed:
            return False
        failed.add(key)
        return True

    scene.maps.fails = first_time
    async with scene.daemon() as daemon:
        await until(lambda: not daemon.readiness.missing)
    assert scene.reconciled == [{FRONTEND: ALL}]
    assert len(failed) >= len(ALL)


async def test_a_changed_cluster_config_is_read_again(scene: Scene) -> None:
    async with scene.daemon() as daemon:
        await until(lambda: not daemon.readiness.missing)
        scene.two.etcd.put(cluster_config("cluster2"), '{"id":1}')
        await until(lambda: "its ID 1 is that of cluster1" in link(daemon, "cluster2")[1])
        assert link(daemon, "cluster2")[0] == LinkState.REJECTED
        assert scene.backends() == {FRONTEND: ALL}
        scene.two.etcd.put(cluster_config("cluster2"), '{"id":3}')
        await until(lambda: daemon.members.name_of(3) == "cluster2")
        await until(lambda: scene.backends() == {FRONTEND: {"10.0.0.1", "10.0.0.2"}})


def has(scene: Scene, addresses: int) -> bool:
    return len(scene.maps.content["md_ipcache"]) == addresses


async def test_what_a_change_takes_is_known_and_what_failed_is_counted(scene: Scene) -> None:
    scene.maps.fails = random_faults(1, share=0.3)
    async with scene.daemon() as daemon:
        await until(lambda: not daemon.readiness.missing)
        assert shown(daemon, "cluster2")["lag"] is None, "lists are no changes"
        for host in range(10, 14):
            scene.two.etcd.put_all(records.ip("cluster2", f"20.0.0.{host}", "172.18.2.11", 131073))
            await until(partial(has, scene, 3 + host - 9))
        await until(lambda: shown(daemon, "cluster2")["lag"])
        lag = shown(daemon, "cluster2")["lag"]
        assert isinstance(lag, dict)
        assert 0 < lag["p50_ms"] <= lag["p99_ms"]
        assert daemon.maps.errors.total() > 0
        event = Event(reason=DropReason.POLICY_CLOSED, family=4, protocol=6, destination_port=80, subject=65537)
        event.source[:4], event.destination[:4] = (20, 0, 0, 1), (10, 0, 0, 1)
        daemon.verdicts.add([bytes(event)] * 3)
        drops = DropCount(daemon)
        assert list(drops.take()) == list(drops.take()) == [("cluster2", "policy-closed", 3)]
        (scene.mesh_folder / "cluster2").unlink()
        await until(lambda: not daemon.remotes())
        assert list(drops.take()) == []
        events = [happening.event for happening in daemon.timeline.after(0) if happening.cluster == "cluster2"]
        assert (events[0], events[-1]) == ("joined", "left")


async def test_health_names_the_missing_event_and_metrics_go_with_their_cluster(scene: Scene) -> None:
    scene.two.kill_proxy()

    async def ask(route: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(f"{base}{route}") as answer:
            return answer.status, await answer.text()

    base = f"http://127.0.0.1:{scene.health_port}"
    async with scene.daemon() as daemon:
        await until(lambda: "local-synced" in daemon.readiness.reached)
        assert (await ask("/healthz"))[0] == 200
        assert await ask("/readyz") == (503, "not ready: missing remotes-synced, reconciled\n")
        metrics = (await ask("/metrics"))[1]
        assert 'meshd_daemon_remote_ready{cluster="cluster2"} 0.0' in metrics
        assert 'meshd_daemon_records{cluster="cluster1",kind="ip"} 2.0' in metrics
        assert 'meshd_daemon_remote_presence{cluster="cluster2",state="stale"} 1.0' in metrics
        assert "meshd_daemon_propagation_seconds_bucket" in metrics
        for series in (
            'map_pressure{map="md_ipcache"}',
            'map_pressure{map="md_outside"}',
            'failing_keys{target="routes"}',
            'remote_sync_seconds{cluster="cluster1"}',
            'remote_certificate_days{cluster="cluster1"}',
            'remote_last_event_seconds{cluster="cluster1"}',
            'remote_connects_total{cluster="cluster2"}',
            'remote_lists_total{cluster="cluster1",reason="connected"}',
        ):
            assert f"meshd_daemon_{series}" in metrics
        served = {family.name for family in text_string_to_metric_families(metrics)}
        told = (Path(__file__).parents[2] / "docs" / "observing.md").read_text()
        assert {n for n in served if not n.endswith("_created")} == set(re.findall(r"`(meshd_daemon_\w+)`", told))
        (scene.mesh_folder / "cluster2").unlink()
        await until(lambda: not daemon.remotes() and not daemon.readiness.missing)
        assert await ask("/readyz") == (200, "ready\n")
        assert "cluster2" not in (await ask("/metrics"))[1]
