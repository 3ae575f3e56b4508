"""The agent as a process, with a real etcd and a real folder."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support import kubernetes
from tests.support.agent import AgentProcess, deployment, eventually
from tests.support.etcd import Etcd
from wire import keys
from wire.keys import Kind
from wire.proto import rpc_pb2

pytestmark = pytest.mark.etcd

WEB = kubernetes.service("web", "30.1.1.1", selector={"app": "web"})
WEB_KEY = keys.record(Kind.SERVICE, "c1", "default/web")
CONFIG_KEY = keys.cluster_config("c1")
#: What is written again and again, and what says who writes.
RESTLESS = {keys.HEARTBEAT, keys.LEADER}

Start = Callable[..., AgentProcess]


@pytest.fixture
def new_agent(tmp_path: Path, etcd: Etcd) -> Iterator[Start]:
    """Makes agents over one folder; ends them with the test."""
    agents: list[AgentProcess] = []

    def new(**settings: Any) -> AgentProcess:
        agents.append(AgentProcess(tmp_path, etcd.url, name=f"agent{len(agents)}", **settings))
        return agents[-1]

    yield new
    for agent in agents:
        agent.kill()


@pytest.fixture
def agent(new_agent: Start) -> AgentProcess:
    """An agent that does not run yet, with a service of three pods and a node in its folder."""
    made = new_agent()
    made.write("web.yaml", kubernetes.namespace("default"), WEB, *deployment("web", 3))
    made.write("node.yaml", kubernetes.node("node-1"))
    return made


@dataclass(frozen=True)
class Entry:
    value: bytes
    lease: int
    revision: int


def entries(etcd: Etcd) -> dict[str, Entry]:
    """Everything in etcd but what never rests."""
    found = etcd.kv.Range(rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0")).kvs
    everything = {each.key.decode(): Entry(each.value, each.lease, each.mod_revision) for each in found}
    return {key: entry for key, entry in everything.items() if key not in RESTLESS}


def backends(etcd: Etcd) -> set[str]:
    value = etcd.get(WEB_KEY)
    return set(json.loads(value)["backends"]) if value else set()


def ips(etcd: Etcd) -> dict[str, int]:
    """Address → identity."""
    prefix = keys.prefix(Kind.IP, "c1")
    return {key.removeprefix(prefix): json.loads(value)["ID"] for key, value in etcd.keys(prefix).items()}


def lease_ttl(etcd: Etcd, lease: int) -> int:
    return int(json.loads(etcd.etcdctl("lease", "timetolive", f"{lease:x}", "-w", "json"))["granted-ttl"])


def test_everything_stands_in_etcd_before_the_canaries(agent: AgentProcess, etcd: Etcd) -> None:
    agent.start_and_publish()
    found = entries(etcd)
    records = {key: entry for key, entry in found.items() if key.startswith(("cilium/state/", "meshd/v1/services/"))}
    canaries = {key: entry for key, entry in found.items() if "/synced/" in key}
    allocations = {key: entry for key, entry in found.items() if key.startswith("meshd/v1/identities/")}
    assert len(records) == 1 + 1 + 3 + 1 + 1  # identity, node, ips, service, local service
    assert len(canaries) == 7
    assert len(allocations) == 1
    assert min(entry.revision for entry in canaries.values()) > max(entry.revision for entry in records.values())
    assert found[CONFIG_KEY].revision < min(entry.revision for entry in records.values())
    assert {lease_ttl(etcd, entry.lease) for entry in records.values()} == {900}
    assert {lease_ttl(etcd, entry.lease) for entry in [*canaries.values(), found[CONFIG_KEY]]} == {60}
    assert {entry.lease for entry in [*allocations.values(), found[keys.GENERATION]]} == {0}
    assert json.loads(found[CONFIG_KEY].value)["id"] == 1
    assert etcd.get(keys.HEARTBEAT)


def test_an_identity_stands_before_the_ip_that_uses_it(agent: AgentProcess, etcd: Etcd) -> None:
    agent.start_and_publish()
    found = entries(etcd)
    (number,) = set(ips(etcd).values())
    identity = found[keys.record(Kind.IDENTITY, "c1", str(number))]
    assert found[f"meshd/v1/identities/{number}"].revision < identity.revision
    ip_prefix = keys.prefix(Kind.IP, "c1")
    assert identity.revision <= min(entry.revision for key, entry in found.items() if key.startswith(ip_prefix))


def test_changes_follow(agent: AgentProcess, etcd: Etcd) -> None:
    agent.start_and_publish()
    agent.write("more.yaml", *deployment("web", 5)[3:])
    eventually(lambda: "10.0.0.5" in backends(etcd))
    agent.remove("more.yaml")
    eventually(lambda: set(ips(etcd)) == {"10.0.0.1", "10.0.0.2", "10.0.0.3"})
    agent.write("web.yaml", kubernetes.service("web", annotations={}), *deployment("web", 3))
    eventually(lambda: etcd.get(WEB_KEY) is None)
    assert len(ips(etcd)) == 3


def test_a_broken_file_costs_only_itself_and_is_said_once(agent: AgentProcess, etcd: Etcd) -> None:
    agent.start_and_publish()
    agent.write_text("broken.yaml", "kind: Pod\nmetadata: {name: [\n")
    agent.write_text("node.yaml", "kind: Node\nmetadata: {name: node-1, labels: 3}\n")
    eventually(lambda: len(agent.status()["source"]["bad"]) == 2)
    agent.write("more.yaml", *deployment("web", 4)[3:])
    eventually(lambda: "10.0.0.4" in backends(etcd))
    assert etcd.get(keys.record(Kind.NODE, "c1", "node-1")) is not None
    assert agent.log().count("broken.yaml:") == 1
    assert agent.log().count("node.yaml:1 (document 1): Node node-1: Expected `object`") == 1
    agent.remove("broken.yaml")
    agent.write("node.yaml", kubernetes.node("node-1"))
    eventually(lambda: agent.status()["source"]["bad"] == [])


@pytest.mark.parametrize("end", [AgentProcess.stop, AgentProcess.kill])
def test_a_restart_writes_nothing(agent: AgentProcess, etcd: Etcd, end: Callable[[AgentProcess], object]) -> None:
    agent.start_and_publish()
    before = entries(etcd)
    end(agent)
    assert entries(etcd) == before
    agent.start_and_publish()
    assert entries(etcd) == before
    agent.write("more.yaml", *deployment("web", 4)[3:])
    eventually(lambda: "10.0.0.4" in ips(etcd))
    assert len(set(ips(etcd).values())) == 1


def test_sigterm_ends_it_cleanly(agent: AgentProcess, etcd: Etcd) -> None:
    agent.start_and_publish()
    assert agent.stop() == 0
    assert etcd.get(keys.LEADER) is None
    assert "Traceback" not in agent.log()


def test_what_went_while_nobody_looked_is_swept_and_what_is_not_ours_stays(agent: AgentProcess, etcd: Etcd) -> None:
    agent.write("more.yaml", *deployment("web", 4)[3:])
    agent.start_and_publish()
    agent.stop()
    agent.remove("more.yaml")
    etcd.put("cilium/state/endpointslices/v1/c1/default/web-1", "x")
    etcd.put("cilium/cache/ip/v1/c2/10.9.9.9", "x")
    agent.start_and_publish()
    assert set(ips(etcd)) == {"10.0.0.1", "10.0.0.2", "10.0.0.3"}
    assert etcd.get("cilium/state/endpointslices/v1/c1/default/web-1") == b"x"
    assert etcd.get("cilium/cache/ip/v1/c2/10.9.9.9") == b"x"


def test_what_cannot_be_read_at_the_start_is_not_taken_for_gone(agent: AgentProcess, etcd: Etcd) -> None:
    agent.write("more.yaml", kubernetes.service("more", "30.1.1.2", selector={"app": "web"}))
    agent.start_and_publish()
    agent.stop()
    agent.write_text("more.yaml", "kind: Service\nmetadata: {name: [\n")
    agent.remove("node.yaml")
    agent.start_and_publish()
    node, more = keys.record(Kind.NODE, "c1", "node-1"), keys.record(Kind.SERVICE, "c1", "default/more")
    agent.write("again.yaml", *deployment("web", 4)[3:])
    eventually(lambda: "10.0.0.4" in ips(etcd))
    assert etcd.get(more) is not None
    agent.remove("more.yaml")
    eventually(lambda: etcd.get(more) is None)
    assert etcd.get(node) is None


def test_etcd_away_at_the_start_is_said_once(agent: AgentProcess, etcd: Etcd) -> None:
    etcd.stop()
    agent.start()
    eventually(lambda: agent.status().get("etcd", {}).get("error"))
    assert agent.status()["source"]["objects"]["Pod"] == 3
    etcd.start()
    eventually(agent.is_settled)
    assert len(backends(etcd)) == 3
    assert agent.log().count("etcd is not there: retrying") == 1
    assert agent.status()["etcd"]["error"] == ""


def test_etcd_away_for_a_while_is_caught_up_with(new_agent: Start, etcd: Etcd) -> None:
    agent = new_agent(leader_ttl_s=600)  # it need not wait for its own lock
    agent.write("web.yaml", *deployment("web", 3))
    agent.write("node.yaml", kubernetes.node("node-1"))
    agent.start_and_publish()
    numbers = set(ips(etcd).values())
    etcd.kill()
    agent.write("more.yaml", *deployment("web", 4)[3:])
    eventually(lambda: agent.phase() != "writing")
    agent.remove("node.yaml")
    etcd.start()
    eventually(lambda: "10.0.0.4" in ips(etcd))
    eventually(lambda: etcd.get(keys.record(Kind.NODE, "c1", "node-1")) is None)
    assert set(ips(etcd).values()) == numbers


def fill(etcd: Etcd) -> None:
    """Puts until there is no space. Raises grpc.RpcError then."""
    for _ in range(500):
        etcd.put("filler", "x" * 100_000)


def test_an_etcd_without_space_is_caught_up_with(tmp_path: Path) -> None:
    etcd = Etcd(tmp_path / "full", options=["--quota-backend-bytes=1000000"])
    agent = AgentProcess(tmp_path, etcd.url)
    agent.write("web.yaml", *deployment("web", 3))
    try:
        etcd.start()
        with pytest.raises(grpc.RpcError, match="space exceeded"):
            fill(etcd)
        agent.start()
        eventually(lambda: "space exceeded" in agent.status().get("etcd", {}).get("error", ""))
        etcd.compact(etcd.delete("filler_", "filler_0"))
        etcd.etcdctl("defrag")
        etcd.etcdctl("alarm", "disarm")
        eventually(lambda: len(ips(etcd)) == 3)
    finally:
        agent.kill()
        etcd.kill()


def test_an_etcd_that_hangs_is_caught_up_with(agent: AgentProcess, etcd: Etcd) -> None:
    agent.start_and_publish()
    os.kill(etcd.pid, signal.SIGSTOP)
    try:
        agent.write("more.yaml", *deployment("web", 4)[3:])
        eventually(lambda: agent.phase() == "connecting")
    finally:
        os.kill(etcd.pid, signal.SIGCONT)
    eventually(lambda: "10.0.0.4" in ips(etcd))


def test_another_etcd_in_its_place_gets_everything_and_the_old_numbers(agent: AgentProcess, etcd: Etcd) -> None:
    agent.start_and_publish()
    before, generation = entries(etcd), etcd.get(keys.GENERATION)
    etcd.stop()
    etcd.wipe()
    etcd.start()
    eventually(lambda: entries(etcd).keys() == before.keys())
    after = entries(etcd)
    assert {key: entry.value for key, entry in after.items() if "/synced/" not in key and key != keys.GENERATION} == {
        key: entry.value for key, entry in before.items() if "/synced/" not in key and key != keys.GENERATION
    }
    assert etcd.get(keys.GENERATION) != generation


def test_a_lost_lease_is_replaced(agent: AgentProcess, etcd: Etcd) -> None:
    agent.start_and_publish()
    before = entries(etcd)
    etcd.etcdctl("lease", "revoke", f"{before[WEB_KEY].lease:x}")
    eventually(lambda: entries(etcd).keys() == before.keys())
    after = entries(etcd)
    assert after[WEB_KEY].lease != before[WEB_KEY].lease
    assert after[WEB_KEY].value == before[WEB_KEY].value
    assert after[CONFIG_KEY] == before[CONFIG_KEY]


def test_the_cluster_config_is_put_right(agent: AgentProcess, etcd: Etcd) -> None:
    agent.start_and_publish()
    right = etcd.get(CONFIG_KEY)
    etcd.put(CONFIG_KEY, '{"id":9}')
    eventually(lambda: etcd.get(CONFIG_KEY) == right)
    etcd.delete(CONFIG_KEY)
    eventually(lambda: etcd.get(CONFIG_KEY) == right)


def test_a_standby_takes_over_what_it_finds(agent: AgentProcess, new_agent: Start, etcd: Etcd) -> None:
    agent.start_and_publish()
    standby = new_agent()
    standby.start()
    eventually(lambda: standby.phase() == "standby")
    before = entries(etcd)
    agent.kill()
    eventually(standby.is_settled)
    assert entries(etcd) == before
    standby.write("more.yaml", *deployment("web", 4)[3:])
    eventually(lambda: "10.0.0.4" in backends(etcd))


def test_an_agent_that_lost_the_lock_without_noticing_writes_nothing(agent: AgentProcess, etcd: Etcd) -> None:
    agent.start_and_publish()
    etcd.delete(keys.LEADER)
    etcd.put(keys.LEADER, "somebody else")
    agent.write("more.yaml", *deployment("web", 4)[3:])
    eventually(lambda: agent.phase() == "standby")
    assert "10.0.0.4" not in ips(etcd)
    etcd.delete(keys.LEADER)
    eventually(lambda: "10.0.0.4" in ips(etcd))


def test_numbers_that_somebody_else_took_are_left_alone(agent: AgentProcess, etcd: Etcd) -> None:
    agent.start_and_publish()
    (number,) = set(ips(etcd).values())
    agent.stop()
    record = f"meshd/v1/identities/{number}"
    etcd.put(record, '{"labels":"k8s:app=somebody-else;"}')
    agent.start_and_publish()
    (other,) = set(ips(etcd).values())
    assert other != number
    assert b"somebody-else" in (etcd.get(record) or b"")


def test_a_number_taken_in_the_same_moment_is_not_shared(agent: AgentProcess, etcd: Etcd) -> None:
    agent.start_and_publish()
    (number,) = set(ips(etcd).values())
    agent.remove("web.yaml")
    eventually(lambda: not ips(etcd))
    agent.stop()
    for key in etcd.keys("meshd/v1/identities/"):
        etcd.delete(key)
    agent.start_and_publish()
    etcd.put(f"meshd/v1/identities/{number}", '{"labels":"k8s:app=quicker;"}')  # after the agent has listed
    agent.write("web.yaml", kubernetes.namespace("default"), WEB, *deployment("web", 3))
    eventually(lambda: len(ips(etcd)) == 3)
    assert number not in ips(etcd).values()


def test_numbers_that_nobody_uses_are_freed_after_a_while(new_agent: Start, etcd: Etcd) -> None:
    agent = new_agent(identity_grace_s=1)
    agent.write("web.yaml", *deployment("web", 2))
    agent.write("db.yaml", *deployment("db", 1, network="10.0.1"))
    agent.start_and_publish()
    numbers = ips(etcd)
    kept, freed = str(numbers["10.0.0.1"]), str(numbers["10.0.1.1"])
    agent.remove("db.yaml")
    eventually(lambda: set(etcd.keys("meshd/v1/identities/")) == {f"meshd/v1/identities/{kept}"})
    eventually(lambda: set(etcd.keys("cilium/state/identities/v1/id/")) == {f"cilium/state/identities/v1/id/{kept}"})
    agent.write("db.yaml", *deployment("db", 1, network="10.0.1"))
    eventually(lambda: str(ips(etcd).get("10.0.1.1")) == freed)
    assert etcd.get(f"meshd/v1/identities/{freed}") is not None


def test_a_record_that_etcd_refuses_costs_itself(agent: AgentProcess, etcd: Etcd) -> None:
    huge = kubernetes.node("huge", annotations={"meshd.io/x": "y" * 2_000_000})
    agent.write("huge.yaml", huge)
    agent.start_and_publish()
    assert len(backends(etcd)) == 3
    assert list(agent.status()["published"]["refused"]) == [keys.record(Kind.NODE, "c1", "huge")]


def test_an_etcd_of_another_cluster_is_refused(agent: AgentProcess, etcd: Etcd) -> None:
    etcd.put(keys.cluster_config("c2"), '{"id":2,"capabilities":{"syncedCanaries":true}}')
    agent.start()
    assert agent.wait() == 3
    assert "this etcd belongs to cluster 'c2'" in agent.log()
    assert "Traceback" not in agent.log()
    assert ips(etcd) == {}


def command(agent: AgentProcess, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*agent.command, *flags], capture_output=True, text=True, timeout=60, check=False)


def test_a_dry_run_shows_what_would_change_and_changes_nothing(agent: AgentProcess, etcd: Etcd) -> None:
    empty = command(agent, "--dry-run")
    assert empty.returncode == 0, empty.stderr
    assert len(empty.stdout.splitlines()) == 8
    assert all(line.startswith("+ ") for line in empty.stdout.splitlines())
    assert entries(etcd) == {}
    once = command(agent, "--once")
    assert once.returncode == 0, once.stderr
    published = entries(etcd)
    for line in empty.stdout.splitlines():
        _, key, value = line.split(" ", 2)
        assert published[key].value == value.encode()
    assert command(agent, "--dry-run").stdout == ""
    agent.remove("node.yaml")
    agent.write("web.yaml", kubernetes.namespace("default"), WEB, *deployment("web", 2))
    changed = command(agent, "--dry-run")
    assert changed.returncode == 0
    assert [line[:50].split(" {")[0] for line in changed.stdout.splitlines()] == [
        "- cilium/state/ip/v1/default/10.0.0.3",
        "- cilium/state/nodes/v1/c1/node-1",
        "~ cilium/state/services/v1/c1/default/web",
        "~ meshd/v1/services/default/web",
    ]
    assert "0 to add, 2 to change, 2 to remove, 0 problem(s)" in changed.stderr
    as_json = json.loads(command(agent, "--dry-run", "-o", "json").stdout)
    assert as_json["removed"] == ["cilium/state/ip/v1/default/10.0.0.3", "cilium/state/nodes/v1/c1/node-1"]
    assert (len(as_json["added"]), len(as_json["changed"]), as_json["problems"]) == (0, 2, [])
    agent.write_text("bad.yaml", "kind: Pod")
    partly = command(agent, "--dry-run")
    assert partly.returncode == 1
    assert [line[:50] for line in partly.stdout.splitlines() if line[0] in "-!"] == [
        "! bad.yaml:1 (document 1): Pod without metadata: O",
        "! 2 keys of which nothing was read stay until ever",
    ]
    assert "Pod without metadata" not in partly.stderr, "it is told once"
    assert entries(etcd) == published


def test_a_dry_run_without_etcd_says_so(agent: AgentProcess, etcd: Etcd) -> None:
    etcd.stop()
    done = command(agent, "--dry-run")
    assert done.returncode == 2
    assert "does not answer" in done.stderr
    assert "Traceback" not in done.stderr


def test_ready_once_everything_is_published_and_then_even_without_etcd(agent: AgentProcess, etcd: Etcd) -> None:
    etcd.stop()
    agent.start()
    eventually(lambda: agent.status().get("etcd", {}).get("error"))
    code, why = agent.fetch("/readyz")
    assert code == 503
    assert why.startswith("not ready: connecting (")
    assert agent.fetch("/healthz") == (200, "ok\n")
    etcd.start()
    eventually(agent.is_settled)
    assert agent.fetch("/readyz") == (200, "ready: leading\n")
    etcd.kill()
    eventually(lambda: agent.phase() == "connecting")
    code, why = agent.fetch("/readyz")
    assert code == 200
    assert why.startswith("ready: etcd away (")


def test_metrics_say_what_was_done(agent: AgentProcess, new_agent: Start) -> None:
    agent.start_and_publish()
    agent.write_text("bad.yaml", "kind: Pod")
    eventually(lambda: agent.status()["source"]["bad"])
    samples = metrics(agent)
    assert samples["meshd_agent_objects", "Pod"] == 3
    assert samples["meshd_agent_keys", "ip"] == 3
    assert samples["meshd_agent_writes_total", ""] == 7
    assert samples["meshd_agent_source_problems", ""] == 1
    assert samples["meshd_agent_leader", ""] == 1
    assert samples["meshd_agent_identities", ""] == 1
    assert samples["meshd_agent_pending", ""] == 0
    assert 0 < samples["meshd_agent_lag_seconds", ""] < 60
    standby = new_agent()
    standby.start()
    eventually(lambda: standby.phase() == "standby" and standby.status()["source"]["synced"])
    assert standby.fetch("/readyz") == (200, "ready: standing by\n")
    assert metrics(standby)["meshd_agent_leader", ""] == 0


def metrics(agent: AgentProcess) -> dict[tuple[str, str], float]:
    """Samples by name and kind."""
    families = text_string_to_metric_families(agent.fetch("/metrics")[1])
    return {(each.name, each.labels.get("kind", "")): each.value for family in families for each in family.samples}


def test_policies_follow_their_objects_and_a_restart_writes_none_again(agent: AgentProcess, etcd: Etcd) -> None:
    agent.write("policies.yaml", kubernetes.policy("p", ingress=[]), kubernetes.cilium_policy("q"))
    agent.start_and_publish()
    prefix = keys.prefix(Kind.POLICY, "c1")
    assert etcd.keys(prefix) == {
        f"{prefix}NetworkPolicy/default/p": b'{"spec":{"ingress":[],"podSelector":{}}}',
        f"{prefix}CiliumClusterwideNetworkPolicy/-/q": b'{"spec":{"endpointSelector":{}}}',
    }
    before = entries(etcd)
    agent.stop()
    agent.start_and_publish()
    assert entries(etcd) == before
    agent.remove("policies.yaml")
    eventually(lambda: not etcd.keys(prefix))


def test_what_others_do_to_our_keys_is_undone_at_once(new_agent: Start, etcd: Etcd) -> None:
    agent = new_agent(heartbeat_s=60, beacon_ttl_s=200)  # neither is why
    agent.write("web.yaml", WEB, kubernetes.node("node-1"), *deployment("web", 3))
    agent.start_and_publish()
    before = entries(etcd)
    ip = keys.record(Kind.IP, "c1", "10.0.0.1")
    canary = keys.canary(Kind.SERVICE, "c1")

    def values() -> dict[str, bytes]:
        return {key: entry.value for key, entry in entries(etcd).items() if key != canary}

    expected = values()
    disturbances: list[Callable[[], object]] = [
        lambda: etcd.put(CONFIG_KEY, '{"id": 9}'),
        lambda: etcd.delete(CONFIG_KEY),
        lambda: etcd.put(WEB_KEY, "{}"),
        lambda: etcd.delete(ip),
        lambda: etcd.put(keys.record(Kind.NODE, "c1", "stranger"), "{}"),
        lambda: etcd.delete(canary),
        lambda: etcd.put(ip, before[ip].value),  # the same, but for ever
    ]
    for disturb in disturbances:
        count = agent.status()["etcd"]["foreign_changes"]
        disturb()
        eventually(lambda was=count: agent.status()["etcd"]["foreign_changes"] == was + 1)  # type: ignore[misc]
        eventually(lambda: values() == expected and etcd.get(canary))
    eventually(lambda: entries(etcd)[ip].lease == before[ip].lease)


def test_a_number_that_others_take_away_is_put_back(agent: AgentProcess, etcd: Etcd) -> None:
    agent.start_and_publish()
    (key,) = etcd.keys("meshd/v1/identities/")
    allocation = etcd.get(key)
    numbers = ips(etcd)
    etcd.delete(key)
    eventually(lambda: etcd.get(key) == allocation)
    eventually(agent.is_settled)
    assert ips(etcd) == numbers


def test_another_cluster_that_comes_into_the_same_etcd_is_shown(agent: AgentProcess, etcd: Etcd) -> None:
    agent.start_and_publish()
    etcd.put(keys.cluster_config("c2"), '{"id": 2, "capabilities": {}}')
    eventually(lambda: "this etcd belongs to cluster 'c2'" in agent.status()["etcd"]["rival"])
    etcd.delete(keys.cluster_config("c2"))
    eventually(lambda: not agent.status()["etcd"]["rival"])
