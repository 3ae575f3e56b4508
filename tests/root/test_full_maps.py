"""Failure contract, clause 8, for services: real maps without room, a real daemon between two real clusters, and a pod
that connects all the time. What is there stays, what is missing is named and tried again, and it comes with the room.
"""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from datapath.loader import LoadSettings, ensure_loaded
from datapath.maps import Maps
from meshd.daemon.program import Daemon
from meshd.daemon.report import Report
from tests.support import records
from tests.support.netns import Machine, Namespace, joined, machine
from tests.support.scene import Scene, until
from tests.support.scene import scene as scene

pytestmark = [pytest.mark.root, pytest.mark.etcd]
FRONTEND = "30.1.1.1:80/TCP"
OWN = {"10.0.0.1", "10.0.0.2"}
SERVICE = "default/rebel-base"


@pytest.fixture
def made() -> Iterator[Machine]:
    with machine() as each:
        yield each


class Pod:
    """A network namespace that has the backends' addresses itself, and connects to the frontend without end."""

    def __init__(self, made: Machine) -> None:
        self.namespace: Namespace = made.namespace("pod")
        for address in (*OWN, *(f"20.0.0.{n}" for n in range(1, 10))):
            self.namespace.ip("addr", "add", f"{address}/32", "dev", "lo")
        self.cgroup = made.cgroup("pod")
        self.failures: list[OSError] = []
        self.connects = 0

    def reached(self) -> str:
        """The backend that a connection goes to."""
        with joined(self.cgroup), self.namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            client.connect(("30.1.1.1", 80))
            return self._accept()

    def _accept(self) -> str:
        accepted, _ = self._server.accept()
        with accepted:
            return str(accepted.getsockname()[0])

    @contextmanager
    def connecting(self) -> Iterator[None]:
        """To the frontend, until the end of the block; failures are counted."""
        stop = threading.Event()

        def connect() -> None:
            while not stop.is_set():
                try:
                    self.reached()
                except OSError as error:
                    self.failures.append(error)
                self.connects += 1

        with self.namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as self._server:
            self._server.bind(("0.0.0.0", 8080))
            self._server.listen(50)
            thread = threading.Thread(target=connect)
            thread.start()
            try:
                yield
            finally:
                stop.set()
                thread.join()


@contextmanager
def kernel(made: Machine, scene: Scene, pod: Pod, sizes: dict[str, int]) -> Iterator[None]:
    """Real maps of these sizes, and the hooks on the pod's cgroup."""
    bpffs = made.bpffs(scene.folder / "bpf")
    loaded = ensure_loaded(LoadSettings(bpffs, f"{made.tag}.full", pod.cgroup, sizes))
    with Maps(loaded.folder) as scene.kernel:
        yield


def offer(scene: Scene, *hosts: int) -> None:
    """What cluster2 has behind the service."""
    scene.two.etcd.put_all(records.service("cluster2", 2, SERVICE, *(f"20.0.0.{host}" for host in hosts)))


def reasons(daemon: Daemon) -> set[str]:
    return {failure.reason for failure in daemon.maps.retries.failures.values()}


async def test_full_backends(scene: Scene, made: Machine) -> None:
    pod = Pod(made)
    with kernel(made, scene, pod, {"md_be4": 4}):
        async with scene.daemon() as daemon:
            await until(lambda: len(scene.backends().get(FRONTEND, ())) == 4, "both clusters")
            with pod.connecting():
                offer(scene, 1, 2, 3, 4)
                await until(lambda: any("full" in reason for reason in reasons(daemon)), "the map is full")
                assert scene.backends() == {FRONTEND: OWN | {"20.0.0.1", "20.0.0.2"}}
                status = Report(daemon).status()
                assert status["state"] == "degraded"
                assert "md_be4" in str(status)
                await until(lambda: max(f.attempts for f in daemon.maps.retries.failures.values()) > 3, "tried again")
                dues = [failure.due - failure.since for failure in daemon.maps.retries.failures.values()]
                assert max(dues) > 1.0  # each time later

                # As many new ones as leave: their room is needed, so no slot may keep those that left.
                offer(scene, 3, 4)
                await until(lambda: scene.backends() == {FRONTEND: OWN | {"20.0.0.3", "20.0.0.4"}}, "replaced")
                offer(scene, 1, 2)
                await until(lambda: scene.backends() == {FRONTEND: OWN | {"20.0.0.1", "20.0.0.2"}}, "replaced at once")
                await until(lambda: not daemon.maps.retries.failures, "everything is written")

                offer(scene, 1, 2, 3)
                await until(lambda: daemon.maps.retries.failures, "full again")
                offer(scene, 3)
                await until(lambda: scene.backends() == {FRONTEND: OWN | {"20.0.0.3"}}, "there is room")
                await until(lambda: not daemon.maps.retries.failures, "in sync")
                assert Report(daemon).status()["state"] == "ok"
                await until(lambda: pod.connects > 200)
        assert not pod.failures


async def test_full_slots(scene: Scene, made: Machine) -> None:
    """A frontend grows only when all its slots stand, another service gets none, and nobody loses what there was."""
    pod = Pod(made)
    with kernel(made, scene, pod, {"md_svc4": 5}):
        async with scene.daemon() as daemon:
            await until(lambda: len(scene.backends().get(FRONTEND, ())) == 4, "both clusters")
            with pod.connecting():
                offer(scene, 1, 2, 3)
                other = records.local_service("cluster1", "default/other", "30.1.1.2", "10.0.0.9")
                scene.one.etcd.put_all(other)
                await until(lambda: len(daemon.maps.retries.failures) == 4, "two slots, two frontends")
                assert scene.backends() == {FRONTEND: OWN | {"20.0.0.1", "20.0.0.2"}}
                assert any("md_svc4" in reason and "full" in reason for reason in reasons(daemon))
                assert Report(daemon).status()["state"] == "degraded"
                offer(scene, 2)
                await until(lambda: scene.backends()[FRONTEND] == OWN | {"20.0.0.2"}, "fewer")
                offer(scene)
                both = {FRONTEND: OWN, "30.1.1.2:80/TCP": {"10.0.0.9"}}
                await until(lambda: scene.backends() == both, "there is room")
                await until(lambda: not daemon.maps.retries.failures, "in sync")
        assert not pod.failures


async def test_full_extras(scene: Scene, made: Machine) -> None:
    """Without room for Maglev's table or for session affinity's pairs backends are chosen at random; nobody is lost."""
    pod = Pod(made)
    ((key, text),) = records.local_service("cluster1", SERVICE, "30.1.1.1", *OWN).items()
    value = json.loads(text)
    value["annotations"] |= {"meshd.io/load-balancing": "maglev"}
    value["session_affinity_timeout_s"] = 100
    ((other, text),) = records.local_service("cluster1", "default/other", "30.1.1.2", *OWN).items()
    with kernel(made, scene, pod, {"md_maglev": 1, "md_affm": 1}):
        async with scene.daemon() as daemon:
            scene.one.etcd.put_all({other: json.dumps(json.loads(text) | {"annotations": value["annotations"]})})
            await until(lambda: len(scene.backends()) == 2 and len(scene.backends()[FRONTEND]) == 4, "both clusters")
            scene.one.etcd.put_all({key: json.dumps(value)})
            await until(lambda: len(reasons(daemon)) >= 2, "both maps are full")
            with pod.connecting():
                assert scene.backends()[FRONTEND] == OWN | {"20.0.0.1", "20.0.0.2"}
                assert any("md_maglev" in reason for reason in reasons(daemon))
                assert any("md_affm" in reason for reason in reasons(daemon))
                await until(lambda: pod.connects > 50)
                del value["annotations"]["meshd.io/load-balancing"]
                value["session_affinity_timeout_s"] = 0
                scene.one.etcd.put_all({key: json.dumps(value)})
                await until(lambda: not daemon.maps.retries.failures, "in sync")
        assert not pod.failures
