"""The prober of the daemon itself, on two nodes, through the tunnel and on the direct path, over both underlays. The
topology: tests/support/twonodes.py.
"""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from meshd.daemon import prober as module
from meshd.daemon.prober import Evidence, Prober
from tests.support.twonodes import TUNNEL_PORT, TwoNodes, two_nodes
from wire.records import Node, NodeAddress

pytestmark = pytest.mark.root
DEADLINE_S = 20.0
SIXES = ("fd00:172::1", "fd00:172::2")
TUNNELLED, ECHOES = [f"udp dport {TUNNEL_PORT}"], ["icmp type echo-request", "icmpv6 type echo-request"]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with two_nodes(tmp_path_factory.mktemp("mesh")) as made:
        for node, address in zip((made.a, made.b), SIXES, strict=True):
            node.namespace.ip("addr", "add", f"{address}/64", "dev", "eth0", "nodad")
        yield made


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INTERVAL_S", 0.2)
    monkeypatch.setattr(module, "URGENT_S", 0.1)
    monkeypatch.setattr(module, "TIMEOUT_S", 0.3)


def evidence(
    mesh: TwoNodes, version: int, *, direct: bool, annotated: bool, until: Callable[[Evidence], bool]
) -> Evidence:
    """What node a knows of node b, as soon as it is that."""
    address = str(mesh.b.underlay) if version == 4 else SIXES[1]
    annotations = {"meshd.io/tunnel": f"vxlan:{TUNNEL_PORT}"} if annotated else None
    node = Node(name="n", cluster="c2", addresses=[NodeAddress("InternalIP", address)], annotations=annotations)
    prober = Prober(node="n1", is_urgent=lambda cluster: False, underlay=version, mtu=lambda: 1500)
    prober.aim("c2", [node], frozenset({"n"}) if direct else frozenset())

    async def observe() -> Evidence:
        task = asyncio.create_task(prober.run())
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not until(found := prober.evidence("c2")):
                    assert not task.done()
                    await asyncio.sleep(0.02)
            return found
        finally:
            task.cancel()

    return mesh.a.namespace.call(lambda: asyncio.run(observe()))


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("direct", "annotated"), [(False, True), (True, True), (True, False)])
def test_a_node_answers_on_the_path_that_packets_take(
    mesh: TwoNodes, version: int, direct: bool, annotated: bool
) -> None:
    found = evidence(mesh, version, direct=direct, annotated=annotated, until=lambda e: bool(e.rtt_s and e.path_mtu))
    assert (found.answers, found.path_mtu) == (True, 1500)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("direct", [False, True])
def test_what_does_not_pass_on_one_path_says_nothing_about_the_other(
    mesh: TwoNodes, version: int, direct: bool
) -> None:
    """Tunnelled packets do not pass, or echoes do not: only who goes that way finds no answer."""
    for shut, answers in ((TUNNELLED, direct), (ECHOES, not direct)):
        rules = ["add table inet shut", "add chain inet shut in { type filter hook input priority -300; }"]
        mesh.b.namespace.run("nft", "; ".join([*rules, *(f"add rule inet shut in {what} drop" for what in shut)]))
        try:
            found = evidence(mesh, version, direct=direct, annotated=True, until=lambda e: e.answers is not None)
            assert found.answers is answers, shut
        finally:
            mesh.b.namespace.run("nft", "delete table inet shut")
