import asyncio

import pytest

from etcdproxy.http2.turn import Turn


class Flushed:
    def __init__(self, told: list[str], name: str, *, fails: bool = False) -> None:
        self._told, self._name, self._fails = told, name, fails

    def flush(self) -> None:
        if self._fails:
            raise KeyError(self._name)
        self._told.append(self._name)

    def abort(self) -> None:
        self._told.append(f"{self._name} aborted")


async def test_all_are_flushed_at_the_next_turn_and_a_bug_costs_one(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    turn = Turn(asyncio.get_running_loop())
    for name in "abc":
        turn.add(Flushed(told, name, fails=name == "b"))
    assert told == []
    await asyncio.sleep(0)
    assert told == ["a", "b aborted", "c"]
    assert "a connection failed" in caplog.text
    turn.add(Flushed(told, "d"))
    await asyncio.sleep(0)
    assert told[-1] == "d"
