"""Random histories with faults: what readers record must be etcd's own history.

Meanwhile etcd and the proxies are killed, stopped and compacted. What is checked: tests/support/histories.py.
"""

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.etcd import Etcd
from tests.support.histories import Fault, Truth, Writer, check_history, run_history
from tests.support.proxy import Proxy

pytestmark = pytest.mark.etcd

SEEDS = range(int(os.environ.get("MESHD_HISTORY_SEEDS", "3")))


def faults(etcd: Etcd, proxies: list[Proxy], writer: Writer) -> list[Fault]:
    def restart_etcd(chance: random.Random) -> None:
        etcd.kill() if chance.random() < 0.5 else etcd.stop()
        etcd.start()

    def restart_proxy(chance: random.Random) -> None:
        proxy = chance.choice(proxies)
        proxy.kill()
        proxy.start()

    def freeze_proxy(chance: random.Random) -> None:
        proxy = chance.choice(proxies)
        os.kill(proxy.pid, signal.SIGSTOP)
        for number in range(20):
            writer.write(-number)
        os.kill(proxy.pid, signal.SIGCONT)

    def compact(_: random.Random) -> None:
        etcd.compact(etcd.put("elsewhere", b""))  # of what readers see, everything; a revision never compacted before

    return [restart_etcd, restart_proxy, freeze_proxy, compact]


@pytest.fixture
def proxies(tmp_path: Path, etcd: Etcd) -> Iterator[list[Proxy]]:
    made = [Proxy(tmp_path / "proxy0", etcd.url)]
    made.append(made[0].sibling(tmp_path / "proxy1"))
    try:
        for proxy in made:
            proxy.start()
        yield made
    finally:
        for proxy in made:
            proxy.kill()


@pytest.mark.parametrize("seed", SEEDS)
async def test_recorded_histories_are_etcds(seed: int, etcd: Etcd, proxies: list[Proxy]) -> None:
    truth: Truth = {}
    chance = random.Random(seed)
    writers = [Writer(random.Random(chance.random()), etcd, truth, name) for name in "ab"]
    followers = await run_history(chance, etcd, proxies, writers, faults(etcd, proxies, writers[0]), steps=300)
    check_history(etcd, truth, followers)
    assert not any("Traceback" in proxy.log.read_text() for proxy in proxies)
