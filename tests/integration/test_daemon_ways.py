"""What is said of ways: of a flow by a daemon, and of clusters that nobody is connected to yet by asking them."""

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from meshd.daemon.flowview import FlowView
from meshd.daemon.routingreport import RoutingReport
from meshd.explain import ip_lines
from meshd.plan import plan
from tests.support import records
from tests.support.kernel import no_faults
from tests.support.scene import Scene, until
from tests.support.scene import scene as scene
from wire.keys import HEARTBEAT

pytestmark = pytest.mark.etcd


async def test_the_way_of_a_flow_is_the_programs_own(scene: Scene) -> None:
    async with scene.daemon() as daemon:
        await until(lambda: not daemon.readiness.missing)
        view = FlowView(daemon)

        def way(source: str, destination: str, port: str = "8080") -> tuple[str, str]:
            answer = view.flow(source, destination, "TCP", port)
            return answer["way"]["kind"], answer["way"]["reason"]

        assert way("10.0.0.1", "20.0.0.1") == ("tunnel", "cluster2/n1 by vxlan:8472 on md_vxlan8472: mode tunnel")
        assert way("10.0.0.1", "20.0.0.77")[0] == "tunnel", "by its PodCIDR"
        assert way("20.0.0.1", "10.0.0.1") == ("local", "a pod of this node")
        assert way("10.0.0.1", "10.0.0.2")[0] == "cni"
        assert way("10.0.0.1", "198.51.100.1")[0] == "cni"
        assert way("10.0.0.1", "30.1.1.1", "80") == ("service", "a backend of default/rebel-base is chosen")
        answer = view.flow("10.0.0.1", "20.0.0.1", "TCP", "80")
        assert answer["source_is_here"]
        assert answer["way"]["via"] == "172.18.2.11"
        assert [claim["believed"] for claim in answer["destination"]["claims"]] == [True, True]
        assert "no pod a/b is known" in view.flow("a/b", "20.0.0.1", "TCP", "80")["error"]


async def test_before_connecting_the_folder_is_enough(scene: Scene) -> None:
    words = [f"--clustermesh={scene.mesh_folder}", f"--local={scene.folder / 'local.yaml'}", "--cluster=cluster1"]

    async def ask() -> tuple[int, dict[str, list[dict[str, object]]]]:
        result = await asyncio.to_thread(CliRunner().invoke, plan, [*words, "-o", "json"])
        return result.exit_code, json.loads(result.stdout)

    async with scene.daemon() as daemon:  # by then both proxies are there
        await until(lambda: not daemon.readiness.missing)
    for cluster in (scene.one, scene.two):
        cluster.etcd.put_all({HEARTBEAT: datetime.now(UTC).isoformat(timespec="seconds")})
    code, shown = await ask()
    assert (code, shown["findings"]) == (0, [])
    two = shown["clusters"][1]
    assert (two["services"], two["ips"], two["etcd"]) == (1, 1, shown["clusters"][0]["etcd"])
    assert re.fullmatch(r"3\.\d+\.\d+", str(two["etcd"]))
    assert (re.fullmatch(r"-?\ds", str(two["heartbeat"])), two["cert"]) != (None, None)
    assert [(c["cluster"], c["id"], c["nodes"], c["tunnels"]) for c in shown["clusters"]] == [
        ("cluster1", 1, 1, ["vxlan:8472"]),
        ("cluster2", 2, 1, ["vxlan:8472"]),
    ]
    scene.two.etcd.put_all(records.node("cluster2", 2, "n2", "172.18.1.11", "10.0.0.0/24"))
    later = datetime.now(UTC) + timedelta(hours=1)
    scene.one.etcd.put_all({HEARTBEAT: later.isoformat(timespec="seconds").replace("+00:00", "Z")})
    code, shown = await ask()
    assert code == 1
    assert len(shown["findings"]) == 3, shown
    assert "cluster1: its clock is 3" in str(shown["findings"])
    table = await asyncio.to_thread(CliRunner().invoke, plan, words)
    assert "PodCIDR 10.0.0.0/24 of cluster2/n2 overlaps 10.0.0.0/24 of cluster1/n1" in table.stdout
    scene.two.stop()
    code, shown = await ask()
    assert code == 1
    assert str(shown["findings"][0]).startswith("cluster2: ipv4:127.0.0.1:")


async def test_conflicts_wrong_announcements_and_what_is_not_reached_are_said_in_words(scene: Scene) -> None:
    scene.maps.fails = no_faults
    async with scene.daemon() as daemon:
        await until(lambda: not daemon.readiness.missing)
        report = RoutingReport(daemon)
        assert list(report.findings()) == []
        scene.two.etcd.put_all(records.node("cluster2", 2, "n2", "172.18.2.11", "20.0.0.0/24"))
        await until(lambda: len(list(report.findings())) == 2)
        assert set(report.findings()) == {
            "20.0.0.0/24 of cluster2/n2: is cluster2/n1's, which is believed",
            "node address 172.18.2.11 of cluster2/n2: is cluster2/n1's, which is believed",
        }
        lost = next(route for route in report.plan()["routes"] if route["node"] == "n2")
        assert (lost["used"], lost["reason"]) == (False, "not used: lost to cluster2/n1")
        flow = FlowView(daemon).flow("10.0.0.1", "20.0.0.1", "TCP", "80")
        said = [line.partition(": ")[2] for line in ip_lines(flow["destination"]) if "of node" in line]
        assert said == [
            "PodCIDR 20.0.0.0/24 of node n1: BELIEVED",
            "PodCIDR 20.0.0.0/24 of node n2: NOT BELIEVED: cluster2/n1 is believed",
        ]
        scene.two.etcd.put_all(records.node("cluster2", 2, "n2", "172.18.2.12", "20.0.2.0/24", tunnel="gre:1"))
        scene.one.etcd.put_all(records.node("cluster1", 1, "n1", "172.18.1.11", "10.0.0.0/24", tunnel="vxlan:9999"))
        await until(lambda: report.summary()["routes"].get("unreachable") == 1)
        await until(lambda: len(list(report.findings())) == 1)
        (finding,) = report.findings()
        assert "this node announces vxlan:9999, but listens on vxlan:8473" in finding
        daemon.config = daemon.config.model_copy(update={"unreachable": "error"})
        assert [text for text in report.findings() if "20.0.2.0/24 of cluster2/n2 cannot be reached" in text]
