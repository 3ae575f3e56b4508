"""The steps of the story, a to g. Each changes something, looks, and says what it saw."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from meshd.testbed import process
from meshd.testbed.demo import witness
from meshd.testbed.demo.proof import prove, snapshot
from meshd.testbed.demo.results import Load, shares
from meshd.testbed.demo.stage import CLIENT_ADDRESS, CLIENT_CLUSTER, CLIENT_NODE, LOCAL_PODS, SERVICE, Seen, Stage

REQUESTS = 400
LEAST_SHARE, MOST_SHARE = 0.15, 0.35
OUTAGE_S = 5.5
RETURN_S = 25.0
"""How long a control plane may take to be back at work: reconnects with back-off, and the agent's leader lock (6 s)."""
RATE = 100
HELD = 6
STREAM_S = 8  # five, and room for a slow machine to start Python in


@dataclass(frozen=True, slots=True)
class Step:
    """`letter` is the step's name in the evidence."""

    letter: str
    title: str
    expect: str
    play: Callable[[Stage], Seen]


def only_local(stage: Stage) -> Seen:
    before = witness.count_nft(stage.bed)
    load = stage.request("a", 40)
    problems = _failed(load)
    if set(load.by_cluster) != {"cluster1"} or len(load.by_pod) != 2:
        problems.append("not only cluster1's two pods")
    through = witness.added(before, witness.count_nft(stage.bed))
    stage.keep("a-nft-added.json", through)
    hits = sum(count for name, count in through.items() if SERVICE in name)
    if hits != 40:  # later steps trust these counters to stand still
        problems.append(f"kube-proxy's rules counted {hits} connections")
    return Seen(not problems, _told(load, "through kube-proxy's rules", *problems))


def shared(stage: Stage) -> Seen:
    for cluster in ("cluster1", "cluster2"):
        stage.set_global(cluster, on=True)
    wait = stage.request_until("b", lambda burst: len(burst.by_pod) == 4)
    before = snapshot(stage)
    load = stage.request("b", REQUESTS)
    problems = _unfair(load)
    if set(load.peers) != {CLIENT_ADDRESS}:
        problems.append(f"servers saw {shares(load.peers)}")
    proven = prove(stage, before, expected_requests=REQUESTS)
    problems += proven.problems
    return Seen(not problems, _told(load, wait.told("all four answer"), proven.seen, *problems))


def _unfair(load: Load) -> list[str]:
    problems = [] if len(load.by_pod) == 4 else [f"{len(load.by_pod)} pods answered, not 4"]
    for pod, count in sorted(load.by_pod.items()):
        if not LEAST_SHARE <= count / len(load.requests) <= MOST_SHARE:
            problems.append(f"{pod} has {100 * count / len(load.requests):.0f} %")
    return [*problems, *_failed(load)]


def failed_over(stage: Stage) -> Seen:
    stream = stage.stream("c", "--seconds=4", f"--rate={RATE}")
    stream.wait_lines(RATE // 2)
    changed = time.monotonic()
    stage.bed.set_ready(CLIENT_CLUSTER, LOCAL_PODS, ready=False)
    load = stream.finish()
    later = load.begun_after(changed + 1.0)
    last_local = max((r.at - changed for r in load.requests if r.pod and r.pod.startswith("cluster1/")), default=0.0)
    problems = [] if set(later.by_cluster) == {"cluster2"} else [f"from 1 s after: {shares(later.by_cluster)}"]
    problems += _failed(later)
    return Seen(not problems, _told(later, f"last local answer {max(0.0, last_local):.2f} s after", *problems))


def control_plane_dead(stage: Stage) -> Seen:
    for part in ("cluster2/proxy", "cluster2/etcd"):
        stage.bed.kill_part(part)
    load = stage.stream("d", f"--seconds={OUTAGE_S}", f"--rate={RATE}").finish()
    problems = [] if set(load.by_cluster) == {"cluster2"} else [f"answered: {shares(load.by_cluster)}"]
    for part in ("cluster2/proxy", "cluster2/etcd"):
        record = process.load(stage.bed.layout.processes, stage.bed.part(part).record_name)
        if record is not None and record.alive:
            problems.append(f"{part} lives")
    problems += _failed(load)
    return Seen(not problems, _told(load, f"{OUTAGE_S:.1f} s without cluster2's etcd and proxy", *problems))


def control_plane_back(stage: Stage) -> Seen:
    bed = stage.bed
    bed.start_parts([bed.part("cluster2/etcd"), bed.part("cluster2/proxy")])
    bed.add_pod("cluster2", "rebel-base-3", like="rebel-base-1", ip="20.0.0.3")
    wait = stage.request_until("e", lambda burst: "cluster2/rebel-base-3" in burst.by_pod, deadline_s=RETURN_S)
    load = stage.request("e", 100)
    problems = [] if load.by_pod["cluster2/rebel-base-3"] else ["the new pod answered nothing"]
    problems += _failed(load)
    return Seen(not problems, _told(load, wait.told("the new pod answers"), *problems))


def daemon_restarted(stage: Stage) -> Seen:
    bed = stage.bed
    bed.set_ready(CLIENT_CLUSTER, LOCAL_PODS, ready=True)
    stage.request_until("f", lambda burst: len(burst.by_pod) == 5)
    stream = stage.stream("f", f"--seconds={STREAM_S}", f"--rate={RATE}", f"--hold={HELD}")
    stream.wait_lines(RATE)
    daemon = f"{CLIENT_CLUSTER}/daemon-{CLIENT_NODE}"
    killed = time.monotonic()
    bed.kill_part(daemon)
    stream.wait_lines(RATE * 2)
    bed.start_parts([bed.part(daemon)])
    away = time.monotonic() - killed
    load = stream.finish()
    problems = _failed(load)
    problems += [f"connection {line.hold} to {line.pod}: {line.error}" for line in load.held if line.error]
    if len(load.held) != HELD or not any((line.pod or "").startswith("cluster2/") for line in load.held):
        problems.append(f"held: {', '.join(sorted(str(line.pod) for line in load.held))}")
    if not any(request.at > killed + away for request in load.requests):
        problems.append("the daemon was not back before the stream ended")
    echoes = sum(line.echoes for line in load.held)
    held = f"{len(load.held)} long connections lived ({echoes} echoes)"
    return Seen(not problems, _told(load, f"daemon away {away:.1f} s", *(problems or [held])))


def unshared(stage: Stage) -> Seen:
    stage.set_global("cluster2", on=False)
    wait = stage.request_until("g", lambda burst: set(burst.by_cluster) == {"cluster1"})
    load = stage.request("g", 200)
    problems = [] if set(load.by_cluster) == {"cluster1"} else ["cluster2 still answers"]
    problems += _failed(load)
    fragments = stage.capture.frames().fragments
    if fragments:
        problems.append(f"{fragments} outer fragments in the whole demo")
    return Seen(not problems, _told(load, wait.told("cluster2 is gone"), *problems))


def _told(load: Load, *more: str) -> str:
    """Who answered how much, and what else there is to say, a line each."""
    failed = f"{len(load.failures)} failed" if load.failures else "none failed"
    lines = [f"{len(load.requests)} requests, {failed}"]
    for cluster in sorted(load.by_cluster):
        answers = (
            f"{pod.partition('/')[2]} {count}"
            for pod, count in sorted(load.by_pod.items())
            if pod.startswith(f"{cluster}/")
        )
        lines.append(f"{cluster}: {', '.join(answers)}")
    return "\n".join([*lines, *more])


def _failed(load: Load) -> list[str]:
    if not load.failures:
        return [] if load.requests else ["no request was made"]
    return [f"{len(load.failures)} requests failed, the first with: {load.failures[0].error}"]


STEPS = (
    Step("a", "Nothing is shared yet", "30.1.1.1 reaches only cluster1's rebel-base", only_local),
    Step(
        "b",
        "Both Services are annotated io.cilium/global-service",
        "400 requests land on all four pods, 15 to 35 % each; servers see frontend-1's own address",
        shared,
    ),
    Step("c", "The local pods become not ready", "from 1 s after, all in cluster2, none fails", failed_over),
    Step("d", "cluster2's proxy and etcd are killed", "traffic to cluster2's pods goes on", control_plane_dead),
    Step("e", "They return, and a pod is added in cluster2", "the new pod takes traffic", control_plane_back),
    Step(
        "f",
        "The daemon on frontend-1's node is killed and restarted",
        "no request fails, long connections live",
        daemon_restarted,
    ),
    Step("g", "cluster2's Service loses its annotation", "its backends are gone from cluster1", unshared),
)
