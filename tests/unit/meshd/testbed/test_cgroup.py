from pathlib import Path

import pytest

from meshd.testbed.cgroup import CgroupError, find_root


def test_version_2_is_found_beside_version_1(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n")
    assert find_root(mounts) == Path("/sys/fs/cgroup/unified")


def test_a_machine_without_it_gets_the_remedy(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n")
    with pytest.raises(CgroupError, match="mount -t cgroup2"):
        find_root(mounts)
