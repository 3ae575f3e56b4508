import os
import socket
from pathlib import Path

from meshd.testbed.process import Record, listens, load, load_all


def test_a_record_is_alive_only_with_its_own_start_time() -> None:
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    assert Record("me", os.getpid(), int(fields[19]), ("python",)).alive
    assert not Record("an older one", os.getpid(), int(fields[19]) - 1, ("python",)).alive


def test_a_broken_record_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.b.json").write_text("{")
    assert load(tmp_path, "a.b") is None
    assert load(tmp_path, "none") is None
    assert load_all(tmp_path) == []


def test_listening_is_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert listens(os.getpid(), port)
    assert not listens(os.getpid(), port)
