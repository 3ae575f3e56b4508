import asyncio
import stat
from pathlib import Path
from unicodedata import category

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.config import ConfigError
from meshd.socket import _CONTROL, SocketError, _visible, get, serve


async def test_what_is_served_is_read_and_only_the_owner_may_open_it(tmp_path: Path) -> None:
    path = tmp_path / "run" / "x.sock"
    async with serve(path, {"/v1/status": lambda: {"state": "ready", "age_s": 1.5}}):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await asyncio.to_thread(get, path, "/v1/status") == {"state": "ready", "age_s": 1.5}
        with pytest.raises(SocketError, match="404"):
            await asyncio.to_thread(get, path, "/v1/other")
    assert not path.exists()


@given(
    st.text(alphabet=st.sampled_from('a\\\\"u01bx\x00\x07\x08\r\x1b\x7f\x9b\xa0ü\n\t') | st.characters(codec="utf-8"))
)
def test_what_another_cluster_says_commands_no_terminal(text: str) -> None:
    body = msgspec.json.encode({"name": text})
    seen = msgspec.json.decode(_CONTROL.sub(_visible, body))["name"]
    assert not [char for char in seen if category(char) == "Cc" and char not in "\n\t"]
    if seen != text:
        assert seen == "".join(f"\\x{ord(c):02x}" if category(c) == "Cc" and c not in "\n\t" else c for c in text)


async def test_a_place_where_no_socket_can_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, why in ((tmp_path / "file/c1/x.sock", "Not a directory"), (tmp_path / ("d" * 110), "path too long")):
        with pytest.raises(ConfigError, match=f"--run-dir: no socket can be made there: .*: .*{why}"):
            async with serve(path, {"/": dict}):
                pass


async def test_a_socket_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    path.touch()
    async with serve(path, {"/": dict}):
        assert await asyncio.to_thread(get, path, "/") == {}


def test_nobody_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SocketError, match="is the process running"):
        get(tmp_path / "none.sock", "/")
