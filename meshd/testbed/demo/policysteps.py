"""The steps about policy, h and i: the well-known one by the cluster's name, and one where the packets arrive."""

import time
from typing import Any

from meshd.socket import SocketError, get
from meshd.testbed.demo.results import Load
from meshd.testbed.demo.stage import CONVERGENCE_S, Seen, Stage
from meshd.testbed.demo.steps import Step
from meshd.testbed.objects import read_manifest
from meshd.testbed.parts import socket_path
from meshd.testbed.testbed import MANIFESTS

NEAR, FAR, POD_PORT = "10.0.0.1", "20.0.0.1", 8080
AFFINITY = "service.cilium.io/affinity"
ALLOWED, DENIED = 20, 3


def egress(stage: Stage) -> Seen:
    before = [stage.probe("h", "x-wing", host, POD_PORT, 2) for host in (NEAR, FAR)]
    problems = ["not all reach each other before"] if any(load.failures for load in before) else []
    _apply(stage, "cluster1")
    _wait_held(stage, "cluster1", "node2", "default/x-wing")
    far, near = (stage.probe("h", "x-wing", host, POD_PORT, n) for host, n in ((FAR, ALLOWED), (NEAR, DENIED)))
    problems += _passed(f"x-wing -> {FAR}", far) + _dropped(f"x-wing -> {NEAR}", near)
    reason, missing = _reason(stage, "cluster1", "node2", "default/x-wing", NEAR)
    problems += missing
    stage.set_global("cluster2", on=True)
    stage.bed.annotate("cluster1", "Service", "rebel-base", AFFINITY, "remote")
    service = stage.probe_until("h", "x-wing", lambda load: set(load.by_cluster) == {"cluster2"} and not load.failures)
    problems += _passed("x-wing -> ClusterIP, affinity remote", service)
    lines = [f"x-wing -> {FAR}: {_count(far)}", f"x-wing -> {NEAR}: {_count(near)}", f"  {reason}"]
    return Seen(
        not problems, "\n".join([*lines, f"x-wing -> ClusterIP, affinity remote: {_count(service)}", *problems])
    )


def ingress(stage: Stage) -> Seen:
    _apply(stage, "cluster2")
    _wait_held(stage, "cluster2", "node1", "default/rebel-base-1")
    welcome = stage.probe("i", "x-wing", FAR, POD_PORT, ALLOWED)
    other = stage.probe("i", "frontend-1", FAR, POD_PORT, DENIED)
    problems = _passed(f"x-wing -> {FAR}", welcome) + _dropped(f"frontend-1 -> {FAR}", other)
    reason, missing = _reason(stage, "cluster2", "node1", "default/frontend-1", FAR)
    problems += missing
    lines = [f"x-wing -> {FAR}: {_count(welcome)}", f"frontend-1 -> {FAR}: {_count(other)}", f"  {reason}"]
    return Seen(not problems, "\n".join([*lines, *problems]))


def _apply(stage: Stage, cluster: str) -> None:
    for obj in read_manifest(MANIFESTS.parent / "policies" / f"{cluster}.yaml"):
        stage.bed.apply(cluster, obj)


def _ask(stage: Stage, cluster: str, node: str, route: str) -> Any:
    try:
        return get(socket_path(stage.bed.layout, cluster, node, "daemon"), route)
    except SocketError:
        return None


def _wait_held(stage: Stage, cluster: str, node: str, pod: str) -> None:
    """Until the node's datapath holds that a policy is in force for the pod, or the step's time is over."""
    end = time.monotonic() + CONVERGENCE_S
    while time.monotonic() < end:
        policies = _ask(stage, cluster, node, "/v1/policies") or []
        if any(each.startswith(f"{pod} ") for policy in policies for each in policy["in_force"]):
            return
        time.sleep(0.05)


def _reason(stage: Stage, cluster: str, node: str, pod: str, destination: str) -> tuple[str, list[str]]:
    """What the node's kernel told of the drop."""
    for event in reversed(_events(stage, cluster, node)):
        if (event["verdict"], event["source"]["pod"], event["destination"]["address"]) == ("drop", pod, destination):
            stage.keep(f"drop-{cluster}.json", event)
            return f"dropped in {cluster} at {event['direction']}: {event['reason']}", []
    return "", [f"{cluster} told of no drop of {pod}"]


def _events(stage: Stage, cluster: str, node: str) -> list[Any]:
    found: list[Any] = []
    after, told = 0, 1
    while after < told:
        answer = _ask(stage, cluster, node, f"/v1/verdicts/{after}")
        if answer is None:
            break
        found += answer["events"]
        after, told = answer["next"], answer["told"]
    return found


def _count(load: Load) -> str:
    return f"{len(load.requests) - len(load.failures)} of {len(load.requests)} answered"


def _passed(what: str, load: Load) -> list[str]:
    return [f"{what}: {len(load.failures)} failed"] if load.failures or not load.requests else []


def _dropped(what: str, load: Load) -> list[str]:
    return [] if len(load.failures) == len(load.requests) else [f"{what} passed"]


POLICY_STEPS = (
    Step(
        "h",
        "cluster1: x-wing may talk to cluster2's rebel-base only",
        f"x-wing -> {FAR} passes, -> {NEAR} is dropped with the reason; so by ClusterIP with affinity remote",
        egress,
    ),
    Step(
        "i",
        "cluster2: rebel-base lets in cluster1's x-wing only",
        f"x-wing -> {FAR} passes, frontend-1 -> {FAR} is dropped in cluster2",
        ingress,
    ),
)
