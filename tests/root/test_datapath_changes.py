"""No moment without a valid backend: connections at full speed to one service while it and others change a thousand
times a second on the real kernel. Bounded by the number of changes.
"""

import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

import pytest

from globalsvc.backend import Backend
from globalsvc.preferences import Balancing
from tests.support.changing import Changing, service
from tests.support.netns import joined
from tests.support.twonodes import TwoNodes, two_nodes

pytestmark = pytest.mark.root

CHANGES = 2000
PER_SECOND = 1000
BALANCINGS = [Balancing.RANDOM, Balancing.MAGLEV]
FRONTEND = ip_address("30.3.1.1")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path_factory.mktemp("mesh")) as made:
        yield made


@pytest.mark.parametrize("balancing", BALANCINGS)
def test_no_connection_is_refused_or_lost_while_everything_changes(mesh: TwoNodes, balancing: Balancing) -> None:
    random.seed(7)
    listening = [mesh.client.namespace.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(6)]
    stop = threading.Event()
    failures: list[OSError] = []
    connects = 0
    for server in listening:
        server.bind((str(mesh.client.v4), 0))
        server.listen(128)

    def connect() -> None:
        nonlocal connects
        with joined(mesh.a.cgroup):
            while not stop.is_set():
                # The pod itself has the backends, so that it is the choice that is tested, and not the network.
                try:
                    with mesh.client.namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
                        client.connect((str(FRONTEND), 80))
                except OSError as error:
                    failures.append(error)
                connects += 1

    def accept(server: socket.socket) -> None:
        server.settimeout(0.1)
        while not stop.is_set():
            try:
                server.accept()[0].close()
            except TimeoutError:
                continue

    live = [Backend(mesh.client.v4, server.getsockname()[1], "TCP", "c") for server in listening]
    changing = Changing(mesh.a.maps)
    changing.clear()
    changing.set(service("ns/watched", FRONTEND, live[:2], balancing, False))
    # A new Maglev table waits for the kernel's grace period: the daemon takes what came meanwhile as one round.
    together = 25 if balancing is Balancing.MAGLEV else 1
    with ThreadPoolExecutor(len(listening) + 1) as pool:
        futures = [pool.submit(connect), *(pool.submit(accept, server) for server in listening)]
        start = time.monotonic()
        try:
            for number in range(CHANGES):
                _change(changing, live, balancing)
                if number % together == 0:
                    changing.write()
                time.sleep(max(0.0, start + number / PER_SECOND - time.monotonic()))  # the rate that is promised
        finally:
            stop.set()
        for future in futures:
            future.result()
    for server in listening:
        server.close()
    assert not failures
    assert connects > 200


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
