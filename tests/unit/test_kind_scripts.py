"""The scripts for kind clusters, with programs for docker, kind and kubectl that only say how they are called."""

import os
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "kind-clusters"
KIND = """case "$*" in
"get clusters") echo cluster1 ;;
"get nodes --name cluster1") printf 'cluster1-control-plane\\ncluster1-worker\\n' ;;
"get nodes"*) echo "No kind nodes found for cluster" >&2 ;;
esac
"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("docker", "kind", "kubectl"):
        path = folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\n{KIND if name == "kind" else ""}')
        path.chmod(0o755)
    return folder


def run(script: str, *words: str, programs: Path) -> tuple[int, str, list[str]]:
    """Exit code, standard error, and what was called."""
    argv = ["bash", str(FOLDER / script), *words]
    path = {"PATH": f"{programs}:/usr/bin:/bin"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, **path})
    calls = programs.parent / "calls"
    return done.returncode, done.stderr, calls.read_text().splitlines() if calls.exists() else []


def test_bird_gets_into_every_node_of_a_cluster(programs: Path) -> None:
    code, _, calls = run("bird/up.sh", "cluster1", programs=programs)
    assert code == 0
    for node in ("cluster1-control-plane", "cluster1-worker"):
        own = [call for call in calls if node in call]
        assert own[0].startswith(f"docker exec {node} sh -c command -v bird")
        assert own[1:] == [
            f"docker cp bird.conf {node}:/etc/bird/bird.conf",
            f"docker exec {node} systemctl restart bird",
        ]


def test_a_cluster_that_does_not_run_is_named(programs: Path) -> None:
    code, said, calls = run("bird/up.sh", programs=programs)
    assert (code, "no kind cluster cluster2 runs" in said) == (3, True)
    assert not [call for call in calls if "cluster2" in call and call.startswith("docker")]


def test_only_clusters_that_are_not_there_are_made(programs: Path) -> None:
    code, _, calls = run("up.sh", programs=programs)
    assert code == 0
    assert [call for call in calls if "create" in call] == ["kind create cluster --config cluster2.yaml --wait 2m"]
    applied = [call for call in calls if " apply " in call]
    assert applied == [
        f"kubectl --context kind-{c} apply -f manifests/shared -f manifests/{c}" for c in ("cluster1", "cluster2")
    ]
    assert run("up.sh", "cluster9", programs=programs)[:2] == (3, "up.sh: no configuration cluster9.yaml here\n")


@pytest.mark.parametrize("script", ["up.sh", "bird/up.sh"])
def test_what_is_missing_is_named(script: str, programs: Path) -> None:
    (programs / "kind").unlink()
    for name in ("bash", "dirname"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    done = subprocess.run(
        ["/usr/bin/bash", str(FOLDER / script)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": str(programs)},
    )
    assert (done.returncode, "needs kind" in done.stderr) == (3, True)
