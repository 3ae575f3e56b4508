"""What a killed test leaves is swept by the next session, and nothing of one that lives."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import leftovers
from tests.support.netns import cgroup2, machine

pytestmark = pytest.mark.root
VICTIM = """
import sys, time
from pathlib import Path
from tests.support.netns import machine

with machine() as made:
    made.namespace("a"), made.cgroup("a"), made.bpffs(Path(sys.argv[1]) / "bpf")
    print(made.tag, flush=True)
    time.sleep(60)
"""


def traces(tag: str, folder: Path) -> list[bool]:
    mounted = str(folder / "bpf") in Path("/proc/mounts").read_text()
    named = [list(place.glob(f"md-{tag}-*")) for place in (Path("/run/netns"), cgroup2())]
    return [mounted, *map(bool, named), (leftovers.FOLDER / tag).exists()]


def test_what_the_killed_leave_goes_and_what_the_living_have_stays(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", VICTIM, str(tmp_path)]
    with machine() as living, subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=Path.cwd()) as victim:
        living.namespace("b")
        assert victim.stdout is not None
        tag = victim.stdout.readline().strip()
        leftovers.sweep()
        assert traces(tag, tmp_path) == [True] * 4
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
        assert tag in leftovers.sweep()
        assert traces(tag, tmp_path) == [False] * 4
        assert Path(f"/run/netns/md-{living.tag}-b").exists()
