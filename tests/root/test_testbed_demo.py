"""`make demo` itself, and its negative control, on testbeds of their own (drawn in meshd/testbed/README.md)."""

import json
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from meshd.testbed import cgroup, netns
from meshd.testbed.layout import BPFFS, Layout

pytestmark = pytest.mark.root
FIELDS = {"step", "expect", "seen", "ok", "seconds"}


@pytest.fixture
def layout() -> Layout:
    return Layout(f"d{secrets.token_hex(3)}")


def start_demo(layout: Layout, build: Path, *options: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "meshd", "testbed", "demo", f"--tag={layout.tag}", f"--build={build}", *options]
    # A shell starts what runs in its background deaf to Ctrl-C, and so are the children.
    argv = ["env", "--default-signal=INT", *argv]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def outcomes(build: Path, name: str = "demo.json") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((build / name).read_text())
    return found


def assert_gone(layout: Layout) -> None:
    assert netns.names(layout.prefix) == []
    assert not layout.cgroup(cgroup.find_root()).exists()
    assert not layout.state.exists()
    assert not list(BPFFS.glob(f"meshd/{layout.tag}-*"))


def test_every_step_sees_what_it_expects(layout: Layout, tmp_path: Path) -> None:
    demo = start_demo(layout, tmp_path)
    said, _ = demo.communicate(timeout=180)
    assert demo.returncode == 0, said
    found = outcomes(tmp_path)
    assert [line["step"][0] for line in found] == list("abcdefghi")
    assert all(line["ok"] and set(line) == FIELDS for line in found)
    kept = {path.name for path in (tmp_path / "demo").rglob("*")}
    assert {"underlay.pcap", "b-tunnel.json", "b-nft-added.json", "cgroup.txt", "cluster1.agent.log"} <= kept
    assert_gone(layout)


def test_without_daemons_step_b_fails(layout: Layout, tmp_path: Path) -> None:
    demo = start_demo(layout, tmp_path, "--control")
    said, _ = demo.communicate(timeout=120)
    assert demo.returncode == 0, said
    found = outcomes(tmp_path, "control.json")
    assert [(line["step"][0], line["ok"]) for line in found] == [("a", True), ("b", False)]
    assert "fails, as it must" in said
    assert not (tmp_path / "demo.json").exists()
    assert_gone(layout)


def test_an_interrupted_demo_leaves_nothing_and_a_second_one_does_not_disturb_it(
    layout: Layout, tmp_path: Path
) -> None:
    demo = start_demo(layout, tmp_path)
    end = time.monotonic() + 30
    while not layout.complete.exists() and time.monotonic() < end:
        time.sleep(0.05)
    second = start_demo(layout, tmp_path / "second")
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 3
    assert "runs: give another --tag" in said
    assert demo.poll() is None, "the demo was over before it could be interrupted"
    demo.send_signal(signal.SIGINT)
    time.sleep(0.2)
    demo.send_signal(signal.SIGINT)  # an impatient user: the cleaning up goes on
    said, _ = demo.communicate(timeout=60)
    assert demo.returncode == 130, said
    assert_gone(layout)
