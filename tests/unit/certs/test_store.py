import threading
from pathlib import Path

import pytest

from certs.names import CertsError
from certs.store import replace_folder


def test_files_change_together(tmp_path: Path) -> None:
    """A reader that resolves the folder once never sees a key and a certificate of two generations."""
    folder = tmp_path / "pair"
    replace_folder(folder, {"crt": b"0", "key": b"0"})
    done = threading.Event()

    def write() -> None:
        for number in range(200):
            replace_folder(folder, {"crt": b"%d" % number, "key": b"%d" % number})
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    mixed, seen = 0, 0
    while not done.is_set():
        try:
            resolved = folder.resolve(strict=True)
            pair = (resolved / "crt").read_bytes(), (resolved / "key").read_bytes()
        except FileNotFoundError:  # this reader was two generations behind
            continue
        seen += 1
        mixed += pair[0] != pair[1]
    writer.join()
    assert seen > 0
    assert mixed == 0
    assert (folder / "crt").read_bytes() == b"199"


def test_keeps_only_the_previous_generation(tmp_path: Path) -> None:
    for number in range(12):
        replace_folder(tmp_path / "a", {"file": b"%d" % number})
    replace_folder(tmp_path / "a.b", {"file": b""})
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.11", ".a.12", ".a.b.1", "a", "a.b"]
    assert (tmp_path / "a").readlink() == Path(".a.12")


def test_failure_leaves_what_was_there(tmp_path: Path) -> None:
    replace_folder(tmp_path / "a", {"file": b"old"})
    with pytest.raises(OSError, match="no"):
        replace_folder(tmp_path / "a", {"file": b"new", "no/where": b""})
    assert (tmp_path / "a" / "file").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.1", "a"]


def test_a_folder_that_was_copied_is_left_alone_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "file").write_text("old")
    with pytest.raises(CertsError, match=r"plain folder: rename it to \.a\.0"):
        replace_folder(folder, {"file": b"new"})
    assert (folder / "file").read_text() == "old"
    folder.rename(tmp_path / ".a.0")  # as it says
    folder.symlink_to(".a.0")
    replace_folder(folder, {"file": b"new"})
    assert (folder / "file").read_text() == "new"
