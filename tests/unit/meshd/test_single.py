from pathlib import Path

import pytest

from meshd.config import ConfigError
from meshd.single import alone, stands


def test_the_second_is_told_who_the_first_is_and_who_comes_after_it_is_not(tmp_path: Path) -> None:
    lock = tmp_path / "run" / "daemon.lock"
    for _ in range(2):
        with alone(lock):
            assert lock.read_text().strip().isdigit()
            with pytest.raises(ConfigError, match=r"daemon\.lock is held by process \d+"), alone(lock):
                pass
        assert not lock.exists()


def test_a_lock_whose_holder_was_killed_is_taken_over(tmp_path: Path) -> None:
    lock = tmp_path / "daemon.lock"
    lock.write_text("1\n")
    with alone(lock):
        assert lock.read_text().strip() != "1"


def test_who_waits_with_a_file_that_is_removed_meanwhile_notices(tmp_path: Path) -> None:
    lock = tmp_path / "daemon.lock"
    with lock.open("w") as opened:
        assert stands(opened.fileno(), lock)
        lock.unlink()
        assert not stands(opened.fileno(), lock)
        lock.touch()
        assert not stands(opened.fileno(), lock)


def test_the_remedy_is_the_callers(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with alone(lock), pytest.raises(ConfigError, match="give another --tag"), alone(lock, "give another --tag"):
        pass


def test_a_place_where_no_file_can_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with (
        pytest.raises(ConfigError, match=r"daemon\.lock cannot be made: .*/run: File exists"),
        alone(tmp_path / "run" / "daemon.lock"),
    ):
        pass
