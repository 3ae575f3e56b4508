from pathlib import Path

import pytest

from meshd.cli import main


def run(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        main(["agent", *arguments])
    return caught.value.code


def test_every_problem_is_reported_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--cluster", "C1", "--cluster-id", "0", "--etcd", "x") == 3
    printed = capsys.readouterr().err
    for setting in ("cluster:", "cluster_id:", "etcd:", "manifests:"):
        assert setting in printed


def test_a_folder_that_is_none_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = ["--cluster", "c1", "--cluster-id", "1", "--etcd", "http://127.0.0.1:1"]
    assert run(*there, "--manifests", str(tmp_path / "nowhere")) == 3
    assert "is not a folder: create it" in capsys.readouterr().err


def test_help_names_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    printed = capsys.readouterr().out
    for flag in ("--config", "--cluster", "--cluster-id", "--etcd", "--manifests", "--run-dir", "--lease-ttl"):
        assert flag in printed
