import asyncio
import stat
from pathlib import Path

import pytest

from meshd.socket import SocketError, get, serve


async def test_what_is_served_is_read_and_only_the_owner_may_open_it(tmp_path: Path) -> None:
    path = tmp_path / "run" / "x.sock"
    async with serve(path, {"/v1/status": lambda: {"state": "ready", "age_s": 1.5}}):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await asyncio.to_thread(get, path, "/v1/status") == {"state": "ready", "age_s": 1.5}
        with pytest.raises(SocketError, match="404"):
            await asyncio.to_thread(get, path, "/v1/other")
    assert not path.exists()


async def test_a_socket_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    path.touch()
    async with serve(path, {"/": dict}):
        assert await asyncio.to_thread(get, path, "/") == {}


def test_nobody_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SocketError, match="is the process running"):
        get(tmp_path / "none.sock", "/")
