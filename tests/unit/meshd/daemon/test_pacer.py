"""Turns come one after another; nobody measures how fast."""

import asyncio
import time

from meshd.daemon.pacer import LISTS_APART_S, Pacer


async def test_the_first_does_not_wait_and_the_others_come_at_a_distance() -> None:
    pacer, turns = Pacer(0.02), list[float]()

    async def one() -> None:
        await pacer.turn()
        turns.append(time.monotonic())

    start = time.monotonic()
    await asyncio.gather(*(one() for _ in range(6)))
    assert turns == sorted(turns)
    assert turns[-1] - start >= 5 * 0.02


def test_255_clusters_are_spread_over_5_s() -> None:
    assert 255 * LISTS_APART_S >= 5.0
