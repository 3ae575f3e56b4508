from pathlib import Path

import pytest

from meshd.config import ConfigError
from meshd.single import alone


def test_the_second_is_told_who_the_first_is_and_who_comes_after_it_is_not(tmp_path: Path) -> None:
    lock = tmp_path / "run" / "daemon.lock"
    for _ in range(2):
        with alone(lock):
            assert lock.read_text().strip().isdigit()
            with pytest.raises(ConfigError, match=r"daemon\.lock is held by process \d+"), alone(lock):
                pass
