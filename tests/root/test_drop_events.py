"""Every drop of the programs is told, with who sent what to whom: packets run through the loaded programs."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from datapath import entries
from datapath.entries import Entry
from datapath.layout import DropReason
from datapath.ringbuf import PacketEvent, Ring, parse_event
from tests.support.policed import FIRST_IFINDEX, TUNNEL, Bench, bench
from tests.support.testrun import frame, run

pytestmark = pytest.mark.root

POD, FAR, STRANGER, FRONTEND = "10.0.0.1", "20.0.0.1", "10.9.9.9", "30.1.1.1"
INGRESS, EGRESS = 0, 1
DEVICE = FIRST_IFINDEX + 1


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("drops"), most=2) as each:
        yield each


@pytest.fixture
def made(loaded: Bench) -> Iterator[Bench]:
    """A pod here, one of another cluster, and nothing that leads there yet."""
    blank = bytes(6)
    loaded.write(
        entries.ipcache_entry(ip_address(POD), identity=65537, tunnel=None, remote=False),
        entries.endpoint_entry(
            ip_address(POD), ifindex=FIRST_IFINDEX, mac=blank, host_mac=blank, identity=65537, policed=False
        ),
        far(),
    )
    yield loaded
    loaded.clear()


def far(*, unreachable: bool = False) -> Entry:
    address = ip_address(FAR)
    return entries.ipcache_entry(address, identity=131073, tunnel=TUNNEL, remote=True, unreachable=unreachable)


def node(*, device: int = 0) -> Entry:
    return entries.node_entry(TUNNEL, cluster_id=2, remote=True, tunnel_ifindex=device, tunnel_mtu=1280)


@dataclass(frozen=True)
class Case:
    reason: DropReason
    program: str = "from_pod"
    source: str = POD
    destination: str = FAR
    facts: tuple[Entry, ...] = ()
    length: int = 0
    direction: int = EGRESS
    answered: bool = False


CASES = [
    Case(DropReason.SPOOFED, source=STRANGER),
    Case(DropReason.NO_TUNNEL),
    Case(DropReason.UNREACHABLE, facts=(node(),)),
    Case(DropReason.PEER_WITHDRAWN, facts=(far(unreachable=True),), answered=True),
    Case(DropReason.TOO_BIG, facts=(node(device=DEVICE),), length=1300, answered=True),
    Case(
        DropReason.NO_BACKEND,
        destination=FRONTEND,
        facts=tuple(entries.service_entries(ip_address(FRONTEND), 80, 17, [])),
    ),
    Case(DropReason.UNREACHABLE, program="to_tunnel", destination=STRANGER),
    Case(DropReason.NO_TUNNEL_KEY, program="from_tunnel", source=FAR, destination=POD, direction=INGRESS),
]


def told(ring: Ring) -> list[PacketEvent]:
    return [parse_event(record) for record in ring.read(1_000_000)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.program}-{case.reason.label}")
def test_a_drop_is_counted_and_told(case: Case, made: Bench) -> None:
    made.write(*case.facts)
    ring = Ring(made.loaded.folder)
    try:
        told(ring)
        before = made.maps.drops()[case.reason]
        packet = frame(case.source, case.destination, "UDP", 80, source_port=4000) + bytes(case.length)
        assert made.run(case.program, packet, FIRST_IFINDEX) is case.answered, "an answer goes back"
        assert made.maps.drops()[case.reason] == before + 1
        (event,) = told(ring)
    finally:
        ring.close()
    assert event.reason is case.reason
    assert (str(event.source), str(event.destination)) == (case.source, case.destination)
    assert (event.source_port, event.port, event.protocol, event.direction) == (4000, 80, 17, case.direction)
    assert event.subject == 0, "no policy was asked"


def test_a_flood_of_one_reason_does_not_silence_the_others(made: Bench) -> None:
    ring = Ring(made.loaded.folder)
    try:
        told(ring)
        path = made.loaded.programs.path("from_pod")
        spoofed = frame(STRANGER, FAR, "UDP", 80)
        before = made.maps.drops()
        made.namespace.call(lambda: run(path, spoofed, ifindex=FIRST_IFINDEX, repeat=5_000))
        assert not made.run("from_pod", frame(POD, FAR, "UDP", 80), FIRST_IFINDEX)
        reasons = [event.reason for event in told(ring)]
    finally:
        ring.close()
    after = made.maps.drops()
    assert reasons.count(DropReason.NO_TUNNEL) == 1
    suppressed = after[DropReason.EVENT_SUPPRESSED] - before[DropReason.EVENT_SUPPRESSED]
    assert reasons.count(DropReason.SPOOFED) + suppressed == 5_000
    assert suppressed
