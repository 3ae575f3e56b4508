"""A policy of the own cluster from etcd to the maps, and what the commands say of it."""

import asyncio
import json
from ipaddress import ip_address

import pytest
from click.testing import CliRunner
from rich.console import Console

from datapath.layout import DropReason
from datapath.policylayout import Event
from meshd.cli import program
from meshd.daemon.mesh import PODS
from meshd.daemon.policyview import UNVERIFIED, PolicyView
from meshd.daemon.verdictview import VerdictView
from meshd.monitor import event_text
from meshd.policies import policies_table
from tests.support import records
from tests.support.kernel import no_faults
from tests.support.scene import Scene, until
from tests.support.scene import scene as scene
from wire.keys import Kind, record
from wire.labels import CLUSTER_LABEL

pytestmark = pytest.mark.etcd

SPEC = {"endpointSelector": {}, "ingress": [{"fromEndpoints": [{"matchLabels": {"app": "x"}}]}]}


def say(scene: Scene, name: str, spec: object) -> None:
    key = record(Kind.POLICY, "cluster1", f"CiliumClusterwideNetworkPolicy/-/{name}")
    scene.one.etcd.put_all({key: json.dumps({"spec": spec})})


async def test_a_policy_is_in_force_and_goes(scene: Scene) -> None:
    scene.one.etcd.put_all(records.identity("cluster1", 65537))
    async with scene.daemon() as daemon:
        await until(lambda: not daemon.readiness.missing)
        assert not scene.maps.content["md_subject"]
        say(scene, "closed", SPEC)
        await until(lambda: PolicyView(daemon).policies() and PolicyView(daemon).policies()[0]["in_force"])
        await until(lambda: scene.interfaces.policed == {7})
        await until(lambda: len(scene.maps.content["md_subject"]) == 1 and scene.maps.content["md_iface"])
        key = record(Kind.POLICY, "cluster1", "CiliumClusterwideNetworkPolicy/-/closed")
        scene.one.etcd.delete(key)
        await until(lambda: not scene.interfaces.policed)
        await until(lambda: not any(scene.maps.content[name] for name in ("md_subject", "md_policy", "md_iface")))


async def test_a_pod_without_an_interface_of_its_own_is_shown_as_not_enforced(scene: Scene) -> None:
    scene.maps.fails = no_faults
    scene.one.etcd.put_all(records.identity("cluster1", 65537))
    scene.one.etcd.put_all(records.ip("cluster1", "10.0.0.9", "172.18.1.11", 65537))
    async with scene.daemon() as daemon:
        say(scene, "closed", SPEC)
        await until(lambda: PolicyView(daemon).policies() and PolicyView(daemon).policies()[0]["in_force"])
        (row,) = PolicyView(daemon).policies()
        assert [pod.split()[-1] for pod in row["pods"]] == ["(10.0.0.1)", "(10.0.0.9)"]
        assert [pod.split()[-1] for pod in row["in_force"]] == ["(10.0.0.1)"]
        (finding,) = PolicyView(daemon).findings()
        assert finding.startswith("policy is not enforced for 10.0.0.9: ")
        assert finding.endswith("the pod 10.0.0.9 has no interface of its own (yet)")
        console = Console(width=200)
        with console.capture() as shown:
            console.print(policies_table([row]))
        text = shown.get()
        assert "(10.0.0.9) not enforced" in text
        assert "(10.0.0.1) audit" in text
        scene.interfaces.shared[ip_address("10.0.0.9")] = "it is behind the macvlan device mv0"
        await until(lambda: daemon.pods_without_interface())
        (finding,) = PolicyView(daemon).findings()
        assert finding == "policy is not enforced for 10.0.0.9: it is behind the macvlan device mv0"
        assert [pod.split()[-1] for pod in PolicyView(daemon).policies()[0]["in_force"]] == ["(10.0.0.1)"]
        del scene.interfaces.shared[ip_address("10.0.0.9")]
        scene.interfaces.add(ip_address("10.0.0.9"), 9)
        daemon.pods.delta.doubt(PODS, [ip_address("10.0.0.9").packed])
        daemon.loop.wake()
        await until(lambda: not PolicyView(daemon).findings())
        assert scene.interfaces.policed == {7, 9}


async def test_what_is_said_of_policies(scene: Scene) -> None:
    scene.maps.fails = no_faults
    scene.one.etcd.put_all(records.identity("cluster1", 65537))
    async with scene.daemon() as daemon:
        view = PolicyView(daemon)
        say(scene, "closed", SPEC)
        say(scene, "broken", {**SPEC, "egress": [{"toFQDNs": []}]})
        await until(lambda: not daemon.readiness.missing and len(view.policies()) == 2)
        (finding,) = view.findings()
        assert "broken is invalid: spec.egress[0].toFQDNs: not supported" in finding
        traced = view.trace("20.0.0.1", "10.0.0.1", "tcp", "80")
        assert traced["passes"], "audit"
        assert [check["allowed"] for check in traced["checks"] if "allowed" in check] == [False]
        assert traced["source"]["cluster"] == "cluster2"
        stranger = view.trace("20.0.0.77", "10.0.0.1", "tcp", "80")
        assert [check["by"] for check in stranger["checks"] if check["mode"] != "-"] == [[UNVERIFIED]]
        assert "error" in view.trace("nobody/here", "10.0.0.1", "tcp", "80")
        (by,) = [check["by"] for check in traced["checks"] if check["mode"] != "-"]
        closed, broken = "CiliumClusterwideNetworkPolicy closed", "CiliumClusterwideNetworkPolicy broken (invalid)"
        assert by == [f"no rule allows it, closed by {broken}, {closed}"]
        event = Event(reason=DropReason.POLICY_AUDITED, family=4, protocol=6, destination_port=80, subject=65537)
        event.source[:4], event.destination[:4] = (20, 0, 0, 1), (10, 0, 0, 1)
        daemon.verdicts.add([bytes(event)])
        daemon.verdicts.add([bytes(event)])
        (told,) = VerdictView(daemon).verdicts("0")["events"]
        text = event_text("i", told)
        assert text.startswith("i: audit ingress TCP/80 ")
        assert "20.0.0.1, cluster2, identity 131073" in text
        assert text.endswith(" (2 times)")


async def test_what_would_change_without_the_default_of_the_local_cluster(scene: Scene) -> None:
    """One of two far identities is meant besides, also where another rule means it already; the valid rules change."""
    scene.two.etcd.put_all(records.identity("cluster2", 131080, app="x"))
    scene.two.etcd.put_all(records.identity("cluster2", 131081, app="y"))
    anywhere = {"matchLabels": {"app": "x"}, "matchExpressions": [{"key": CLUSTER_LABEL, "operator": "Exists"}]}
    async with scene.daemon() as daemon:
        view = PolicyView(daemon)
        rules = [{"fromEndpoints": [anywhere], "toPorts": [{"ports": [{"port": "80"}]}]}, *SPEC["ingress"]]
        say(scene, "two", {**SPEC, "ingress": rules})
        say(scene, "anywhere", {**SPEC, "ingress": rules[:1]})
        say(scene, "broken", {**SPEC, "egress": [{"toFQDNs": []}]})
        await until(lambda: not daemon.readiness.missing and len(view.policies()) == 3)
        await until(lambda: {131080, 131081} <= daemon.policing.engine.peers.labels.keys())
        expected = {
            "policy": "CiliumClusterwideNetworkPolicy two",
            "selectors": ["app=x, io.cilium.k8s.policy.cluster=cluster1"],
            "identities": 1,
        }
        assert view.default_local() == {"default_local": True, "changes": [expected]}
        run = ["policy", "inspect-default-local", "--run-dir", str(scene.folder / "run")]
        answer = await asyncio.to_thread(CliRunner().invoke, program, run)
        assert answer.exit_code == 1
        assert answer.output == (
            "policy-default-local-cluster is on; policies that would change: 1\n"
            "  CiliumClusterwideNetworkPolicy two: identities 1, app=x, io.cilium.k8s.policy.cluster=cluster1\n"
        )
