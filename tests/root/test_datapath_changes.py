"""No moment without a valid backend: connections at full speed to one service while it and others change a thousand
times a second on the real kernel, chosen by the socket hooks and per packet.
"""

import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from globalsvc.backend import Backend
from globalsvc.preferences import Balancing
from meshd.testbed.process import listens
from tests.support.changing import Changing, service
from tests.support.twonodes import Pod, TwoNodes, two_nodes

pytestmark = pytest.mark.root

SECONDS = 2
PER_SECOND = 1000
FIRST_PORT, SERVERS = 9000, 6
BALANCINGS = [Balancing.RANDOM, Balancing.MAGLEV]
FRONTEND = ip_address("30.3.1.1")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path_factory.mktemp("mesh")) as made:
        yield made


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both ends of the connections: they end with an error at the first one that is refused or gets no answer."""
    built = tmp_path_factory.mktemp("client") / "lb_client"
    source = Path(__file__).parents[2] / "bench" / "lb_client.c"
    subprocess.run(["cc", "-O2", "-o", str(built), str(source)], check=True)
    return built


@contextmanager
def serving(program: Path, pod: Pod) -> Iterator[list[Backend]]:
    words = [str(program), "serve", str(pod.v4), str(FIRST_PORT), str(SERVERS)]
    server = subprocess.Popen(pod.namespace.command(*words))
    try:
        end = time.monotonic() + 5
        while not all(listens(server.pid, FIRST_PORT + n) for n in range(SERVERS)):
            assert server.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        yield [Backend(pod.v4, FIRST_PORT + n, "TCP", "c") for n in range(SERVERS)]
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize("balancing", BALANCINGS)
@pytest.mark.parametrize("hooked", [True, False], ids=["socket", "packets"])
def test_no_connection_is_refused_or_lost_while_everything_changes(
    mesh: TwoNodes, program: Path, hooked: bool, balancing: Balancing
) -> None:
    """Connect, ask, read the answer, close, and again, without a pause."""
    random.seed(7)
    for name, value in (("tcp_tw_reuse", "1"), ("ip_local_port_range", "1024 65535")):
        mesh.client.namespace.sysctl(f"ipv4/{name}", value)
    changing = Changing(mesh.a.maps)
    changing.clear()
    # A new Maglev table waits for the kernel's grace period: the daemon takes what came meanwhile as one round.
    together = 25 if balancing is Balancing.MAGLEV else 1
    # Hooked, the pod itself has the backends, so that it is the choice that is tested, and not the network.
    with serving(program, mesh.client if hooked else mesh.server) as live:
        changing.set(service("ns/watched", FRONTEND, live[:2], balancing, False))
        words = [str(program), "connect", str(FRONTEND), "80", str(SECONDS)]
        inside = mesh.client.namespace.command(*words, cgroup=mesh.a.cgroup if hooked else None)
        client = mesh.machine.start(inside)
        start = time.monotonic()
        for number in range(SECONDS * PER_SECOND):
            _change(changing, live, balancing)
            if number % together == 0:
                changing.write()
            time.sleep(max(0.0, start + number / PER_SECOND - time.monotonic()))  # the rate that is promised
        said, _ = client.communicate(timeout=10)
        assert client.returncode == 0, said
    assert float(said) > 100, said


def _change(changing: Changing, live: list[Backend], balancing: Balancing) -> None:
    """The watched service gets other live backends; or another service is made, changed or emptied."""
    if random.random() < 0.5:
        chosen = random.sample(live, random.randint(1, len(live)))
        changing.want(service("ns/watched", FRONTEND, chosen, balancing, random.random() < 0.5))
        return
    number = random.randint(1, 50)
    hosts = random.sample(range(1, 200), random.randint(0, 8))
    backends = [Backend(ip_address(f"10.9.0.{host}"), 80, "TCP", "c") for host in hosts]
    backends += random.sample(live, random.randint(0, 2))
    changing.want(service(f"ns/other{number}", f"30.3.2.{number}", backends, balancing, False))


def test_numbers_and_slots_survive_a_restart_which_writes_nothing(mesh: TwoNodes) -> None:
    backends = [Backend(ip_address(f"10.8.0.{host}"), 80, "TCP", "c") for host in range(1, 60)]
    before = Changing(mesh.a.maps)
    before.clear()
    for number in range(40):
        chosen = random.Random(number).sample(backends, 20)
        balancing = BALANCINGS[number % 2]
        before.set(service(f"ns/s{number % 10}", f"30.3.3.{number % 10 + 1}", chosen, balancing, number % 3 == 0))
    after = Changing(mesh.a.maps, before.model)
    assert sum(after.set(each) for each in list(before.model.values())) == 0


def test_one_backend_of_five_thousand_changes_a_handful_of_entries(mesh: TwoNodes) -> None:
    backends = [Backend(ip_address(f"10.7.{n // 250}.{n % 250}"), 80, "TCP", "c") for n in range(5000)]
    changing = Changing(mesh.a.maps)
    changing.set(service("ns/large", "30.3.4.1", backends, Balancing.RANDOM, False))
    # Removed from the middle: the last one moves in, the count, the last slot and the backend go.
    written = changing.set(service("ns/large", "30.3.4.1", backends[:2000] + backends[2001:], Balancing.RANDOM, False))
    assert written == 4
    assert changing.set(service("ns/large", "30.3.4.1", backends, Balancing.RANDOM, False)) == 3
