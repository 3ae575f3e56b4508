"""The network fails between readers and a proxy, and between the proxy and etcd: cut, black hole, half-open.

    readers ── relay ──▶ proxy ── relay ──▶ etcd

Recorded histories must stay etcd's own (tests/support/histories.py), whatever was on its way when it happened.
"""

import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.etcd import Etcd
from tests.support.histories import STATE, STATE_END, Fault, Truth, Writer, check_history, run_history
from tests.support.proxy import Proxy, reader
from tests.support.relay import Relay

pytestmark = pytest.mark.etcd

SEEDS = range(int(os.environ.get("MESHD_HISTORY_SEEDS", "2")))


@dataclass
class Network:
    proxy: Proxy
    readers: Relay  # between them and the proxy
    upstream: Relay  # between the proxy and etcd


@pytest.fixture
def network(tmp_path: Path, etcd: Etcd) -> Iterator[Network]:
    upstream = Relay(etcd.address)
    proxy = Proxy(tmp_path / "proxy", f"http://{upstream.address}")
    readers = Relay(proxy.address)
    proxy.reached_at = readers.address
    try:
        proxy.start()
        proxy.await_synced()
        yield Network(proxy, readers, upstream)
    finally:
        proxy.kill()
        readers.close()
        upstream.close()


def faults(network: Network, writer: Writer) -> list[Fault]:
    def write(chance: random.Random) -> None:
        for number in range(chance.randrange(30)):
            writer.write(-number)

    def cut(chance: random.Random) -> None:
        relay = chance.choice([network.readers, network.upstream])
        relay.cut()
        write(chance)
        relay.resume()

    def black_hole(chance: random.Random) -> None:
        relay = chance.choice([network.readers, network.upstream])
        there, back = chance.choice([(True, True), (True, False), (False, True)])
        relay.stall(there=there, back=back)
        write(chance)
        if chance.random() < 0.5:
            relay.resume()  # late, but nothing is lost
        else:
            relay.renew()  # what was on its way is lost

    def cut_both(chance: random.Random) -> None:
        network.readers.cut()
        network.upstream.stall()
        write(chance)
        network.readers.resume()
        network.upstream.renew()

    return [cut, black_hole, cut_both]


@pytest.mark.parametrize("seed", SEEDS)
async def test_histories_over_a_bad_network_are_etcds(seed: int, etcd: Etcd, network: Network) -> None:
    truth: Truth = {}
    chance = random.Random(seed)
    writer = Writer(random.Random(chance.random()), etcd, truth, "a")
    possible = faults(network, writer)
    followers = await run_history(chance, etcd, [network.proxy], [writer], possible, steps=300, fault_every=15)
    check_history(etcd, truth, followers)
    assert network.readers.accepted > 10
    assert "Traceback" not in network.proxy.log.read_text()


async def test_a_black_hole_towards_etcd_is_noticed_and_the_watch_goes_on(etcd: Etcd, network: Network) -> None:
    """Nobody says that the connection is gone: the proxy must ask. Readers see silence, then every event, once."""
    proxy = network.proxy
    async with (
        reader(proxy, proxy.certificate("remote-c2")) as reading,
        reading.watch(STATE, STATE_END) as watch,
    ):
        first = etcd.put("cilium/state/a", "1")
        assert [event.kv.mod_revision for event in (await watch.read()).events] == [first]
        network.upstream.stall()
        missed = [etcd.put("cilium/state/a", str(number)) for number in range(5)]
        status = proxy.await_status(lambda status: bool(status["upstream"]["state"] == "away"))
        assert status["upstream"]["problem"]
        assert (await reading.range(STATE, STATE_END)).header.revision == first  # what is known is served
        network.upstream.renew()
        heard = [event.kv.mod_revision for answer in await watch.read_until(missed[-1]) for event in answer.events]
    assert heard == missed


async def test_one_readers_black_hole_is_not_the_others(etcd: Etcd, network: Network) -> None:
    proxy = network.proxy
    certificate = proxy.certificate("remote-c2")
    async with reader(proxy, certificate) as lost, lost.watch(STATE, STATE_END) as silent:
        network.readers.stall()
        proxy.reached_at = proxy.address
        async with reader(proxy, certificate) as reading, reading.watch(STATE, STATE_END) as watch:
            began = time.monotonic()
            revisions = [etcd.put("cilium/state/a", "x" * 1000) for _ in range(200)]
            answers = await watch.read_until(revisions[-1])
            assert [event.kv.mod_revision for answer in answers for event in answer.events] == revisions
            assert time.monotonic() - began < 20
        network.readers.resume()
        late = [event.kv.mod_revision for answer in await silent.read_until(revisions[-1]) for event in answer.events]
    assert late == revisions
