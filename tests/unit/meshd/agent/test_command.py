from pathlib import Path

import pytest
import yaml

from meshd.cli import main


def run(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        main(["agent", *arguments])
    return caught.value.code


def test_every_problem_is_reported_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--cluster", "C1", "--cluster-id", "0", "--etcd", "x") == 3
    printed = capsys.readouterr().err
    for setting in ("cluster:", "cluster_id:", "etcd:", "exactly one source is needed"):
        assert setting in printed


def test_a_folder_that_is_none_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = ["--cluster", "c1", "--cluster-id", "1", "--etcd", "http://127.0.0.1:1"]
    assert run(*there, "--manifests", str(tmp_path / "nowhere")) == 3
    assert "is not a folder: create it" in capsys.readouterr().err


def test_help_names_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    printed = capsys.readouterr().out
    for flag in (
        "--config",
        "--cluster",
        "--cluster-id",
        "--etcd",
        "--manifests",
        "--kubeconfig",
        "--run-dir",
        "--lease-ttl",
    ):
        assert flag in printed


def test_the_settings_in_force_can_be_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text("cluster: c1\ncluster_id: 1\netcd: http://127.0.0.1:1\nmanifests: /m\n")
    assert run("--config", str(file), "--cluster-id", "2", "--print-config") == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["cluster"], printed["cluster_id"], printed["lease_ttl_s"]) == ("c1", 2, 900)
    file.write_text(yaml.safe_dump(printed))
    assert run("--config", str(file), "--print-config") == 0
    assert yaml.safe_load(capsys.readouterr().out) == printed


def test_a_health_address_that_cannot_be_used_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = ["--cluster", "c1", "--cluster-id", "1", "--etcd", "http://127.0.0.1:1", "--manifests", str(tmp_path)]
    assert run(*there, "--run-dir", str(tmp_path), "--health", "127.0.0.1:port") == 3
    assert "--health: cannot listen on 127.0.0.1:port" in capsys.readouterr().err
