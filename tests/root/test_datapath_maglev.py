"""Maglev on two nodes that know each other's services only by name: one flow, one backend, whichever node it enters by.

The same UDP packets (source address, ports) are sent from a pod of each node; md_nat tells which backend each flow got.
"""

import random
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address
from typing import cast

import pytest

from datapath.description import decode
from datapath.entries import Entry
from datapath.maglev import DEFAULT_SIZE, ENTRY_BYTES
from datapath.servicelayout import Nat as NatValue
from datapath.servicelayout import NatDirection, NatKey
from globalsvc.backend import Backend
from globalsvc.merge import Frontend, GlobalService
from globalsvc.preferences import Balancing
from tests.support.changing import Changing
from tests.support.twonodes import Node, Pod, TwoNodes, two_nodes

pytestmark = pytest.mark.root

FRONTEND = ip_address("30.4.1.1")
BACKENDS = [Backend(ip_address(f"10.9.0.{host}"), 8000 + host, "UDP", "c") for host in range(1, 21)]
FLOWS = range(20_000, 20_300)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path_factory.mktemp("mesh")) as made:
        yield made


def service(backends: list[Backend], *, weighted: bool = False) -> GlobalService:
    weights = tuple(1 + backend.port % 3 for backend in backends) if weighted else ()
    frontend = Frontend(FRONTEND, 53, "UDP", "", tuple(backends), weights)
    return GlobalService("ns/maglev", (frontend,), balancing=Balancing.MAGLEV)


@pytest.fixture
def nodes(mesh: TwoNodes) -> tuple[Changing, Changing]:
    """The first has a history: other services, other backends before. The second one is new."""
    first, second = Changing(mesh.a.maps), Changing(mesh.b.maps)
    for each in (first, second):
        each.clear()
    for seed in range(10):
        chosen = random.Random(seed).sample(BACKENDS, 12)
        first.set(service(chosen))
    return first, second


def table(node: Node) -> list[object]:
    """Its one Maglev table, with the backends themselves in the place of their numbers."""
    facts = [decode(Entry("md_be4", *item)) for item in node.maps.dump("md_be4").items()]
    backends = {each["backend_id"]: (each["address"], each["port"]) for each in facts}
    (value,) = node.maps.dump("md_maglev").values()
    assert len(value) == DEFAULT_SIZE * ENTRY_BYTES
    return [backends[number] for number in struct.unpack(f"={DEFAULT_SIZE}I", value)]


@pytest.mark.parametrize("weighted", [False, True])
def test_two_nodes_have_the_same_table_whatever_their_history(
    mesh: TwoNodes, nodes: tuple[Changing, Changing], weighted: bool
) -> None:
    first, second = nodes
    first.set(service(BACKENDS, weighted=weighted))
    second.set(service(BACKENDS[::-1], weighted=weighted))
    assert mesh.a.maps.dump("md_maglev") != mesh.b.maps.dump("md_maglev")  # each has its own numbers
    assert table(mesh.a) == table(mesh.b)


def test_a_flow_has_the_same_backend_on_both_nodes_and_keeps_it_when_another_one_leaves(
    mesh: TwoNodes, nodes: tuple[Changing, Changing]
) -> None:
    for each in nodes:
        each.set(service(BACKENDS))
    before = chosen(mesh.a, mesh.client, mesh.client.v4)
    assert before == chosen(mesh.b, mesh.server, mesh.client.v4)
    assert len(set(before.values())) == len(BACKENDS)
    gone = BACKENDS[7]
    for each in nodes:
        each.set(service([backend for backend in BACKENDS if backend is not gone]))
    after = chosen(mesh.a, mesh.client, mesh.client.v4)
    assert after == chosen(mesh.b, mesh.server, mesh.client.v4)
    others = [port for port in FLOWS if before[port] != (gone.address, gone.port)]
    moved = sum(1 for port in others if after[port] != before[port])
    assert moved / len(others) < 0.2, moved  # of the table's 251 entries it is 9 %; of a plain hash modulo n, 95 %


def chosen(node: Node, pod: Pod, source: IPv4Address) -> dict[int, tuple[IPv4Address, int]]:
    """Which backend each flow, by its source port, gets that has no entry yet."""
    node.maps.delete("md_nat", node.maps.dump("md_nat"))
    with pod.namespace.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
        for port in FLOWS:
            sender.sendto(_packet(source, port), (str(FRONTEND), 0))
    found = {}
    for key, value in node.maps.dump("md_nat").items():
        flow, backend = NatKey.from_buffer_copy(key), NatValue.from_buffer_copy(value)
        if flow.direction == NatDirection.FORWARD:
            found[int(flow.source_port)] = (IPv4Address(bytes(backend.address)[:4]), int(backend.port))
    assert found.keys() == set(FLOWS)
    return found


def _packet(source: IPv4Address, port: int) -> bytes:
    udp = struct.pack("!HHHH", port, 53, 9, 0) + b"x"
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, socket.IPPROTO_UDP, 0)
    return header + source.packed + cast(IPv4Address, FRONTEND).packed + udp
