import asyncio

import pytest

from etcdproxy.http2.turn import Turn


class Flushed:
    unsettled = True

    def __init__(self, told: list[str], name: str, *, fails: str = "") -> None:
        self._told, self._name, self._fails = told, name, fails

    def gather(self) -> bytes:
        if self._fails == "gather":
            raise KeyError(self._name)
        return self._name.encode()

    def write(self, data: bytes) -> None:
        if self._fails == "write":
            raise KeyError(self._name)
        self._told.append(data.decode())

    def settle(self) -> None:
        if self._fails == "settle":
            raise KeyError(self._name)

    def abort(self) -> None:
        self._told.append(f"{self._name} aborted")


async def test_all_are_flushed_at_the_next_turn_and_a_bug_costs_one(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    turn = Turn(asyncio.get_running_loop())
    for name, fails in (("a", ""), ("b", "gather"), ("c", ""), ("d", "write"), ("e", "settle")):
        turn.add(Flushed(told, name, fails=fails))
    assert told == []
    await asyncio.sleep(0)
    assert told == ["b aborted", "a", "c", "d aborted", "e", "e aborted"]
    assert "a connection failed" in caplog.text
    turn.add(Flushed(told, "f"))
    await asyncio.sleep(0)
    assert told[-1] == "f"
