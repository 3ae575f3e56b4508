"""What the steps of the demo play with: the testbed, the client in frontend-1, the capture, the evidence."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from meshd.testbed.demo.capture import Capture
from meshd.testbed.demo.client import Stream
from meshd.testbed.demo.results import Load
from meshd.testbed.testbed import Testbed

CLIENT_CLUSTER, CLIENT_POD, CLIENT_NODE = "cluster1", "frontend-1", "node2"
CLIENT_ADDRESS = "10.0.1.1"
FRONTEND, PORT = "30.1.1.1", 80
SERVICE = "rebel-base"
GLOBAL = "io.cilium/global-service"
LOCAL_PODS = ("rebel-base-1", "rebel-base-2")
CONVERGENCE_S = 10.0
"""How long a step waits for the mesh to do what it should; then it fails."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a step saw, in one or a few lines, and whether that is what it expects."""

    ok: bool
    text: str


@dataclass(frozen=True, slots=True)
class Wait:
    """What the last burst of a wait saw, how long the wait was, and whether it was worth it."""

    load: Load
    seconds: float
    met: bool

    def told(self, what: str) -> str:
        """`<what> 0.1 s after`, or that it did not happen."""
        return f"{what} {self.seconds:.1f} s after" if self.met else f"not within {self.seconds:.0f} s: {what}"


class Stage:
    """One performance. Evidence of step `b` goes to files that begin with `b`."""

    def __init__(self, bed: Testbed, evidence: Path, capture: Capture) -> None:
        self.bed = bed
        self.evidence = evidence
        self.capture = capture
        self._place = bed.kubelet(CLIENT_CLUSTER).place_of(bed.pod(CLIENT_CLUSTER, CLIENT_POD))
        self._streams: list[Stream] = []
        self._runs = 0

    def stream(self, step: str, *options: str) -> Stream:
        """Starts the load program in frontend-1, against the service's ClusterIP."""
        self._runs += 1
        return self._start(self.evidence / f"{step}-load{self._runs}.jsonl", *options)

    def _start(self, output: Path, *options: str) -> Stream:
        stream = Stream(self._place, FRONTEND, PORT, list(options), output)
        self._streams.append(stream)
        return stream

    def request(self, step: str, count: int, *options: str) -> Load:
        """So many requests, as fast as they are answered."""
        return self.stream(step, f"--requests={count}", *options).finish()

    def request_until(self, step: str, wanted: Callable[[Load], bool], *, deadline_s: float = CONVERGENCE_S) -> Wait:
        """Bursts of 40 requests until one is as wanted or the deadline is over. Keeps the last burst only."""
        start = time.monotonic()
        while True:
            load = self._start(self.evidence / f"{step}-wait.jsonl", "--requests=40").finish()
            took = time.monotonic() - start
            if wanted(load) or took > deadline_s:
                return Wait(load, took, wanted(load))

    def probe(self, step: str, pod: str, host: str, port: int, count: int) -> Load:
        """So many requests from another pod of the client's cluster, to any address."""
        self._runs += 1
        place = self.bed.kubelet(CLIENT_CLUSTER).place_of(self.bed.pod(CLIENT_CLUSTER, pod))
        output = self.evidence / f"{step}-{pod}-{self._runs}.jsonl"
        stream = Stream(place, host, port, [f"--requests={count}"], output)
        self._streams.append(stream)
        return stream.finish()

    def probe_until(self, step: str, pod: str, wanted: Callable[[Load], bool]) -> Load:
        """Bursts of requests to the service's ClusterIP until one is as wanted; the last one."""
        end = time.monotonic() + CONVERGENCE_S
        while True:
            load = self.probe(step, pod, FRONTEND, PORT, 20)
            if wanted(load) or time.monotonic() > end:
                return load

    def set_global(self, cluster: str, *, on: bool) -> None:
        self.bed.annotate(cluster, "Service", SERVICE, GLOBAL, "true" if on else None)

    def keep(self, name: str, content: object) -> None:
        """Writes evidence as JSON."""
        (self.evidence / name).write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")

    def close(self) -> None:
        """Ends what still runs."""
        for stream in self._streams:
            stream.stop()
