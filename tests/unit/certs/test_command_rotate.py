import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from click.testing import CliRunner, Result

from certs.authority import init_ca
from certs.command import certs
from certs.leaves import issue
from certs.names import Leaf

REFUSED = 3


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(certs, [*map(str, arguments)])


def days_left(directory: Path) -> dict[str, int]:
    rows = json.loads(run("show", "--dir", directory, "-o", "json").output)
    return {row["common_name"]: row["days_left"] for row in rows if row["kind"] != "ca"}


def test_leaves_that_end_soon_are_rotated(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = init_ca(tmp_path, now=now)
    for name, age in (("remote-c2", 80), ("remote-c3", 10)):
        issue(authority, Leaf.parse(name), tmp_path, now=now - timedelta(days=age))
    done = run("rotate", "--dir", tmp_path, "--days-left", "30")
    assert done.exit_code == 0, done.output
    assert days_left(tmp_path) == {"remote-c2": 89, "remote-c3": 79}
    assert "left" in done.output
    run("rotate", "remote-c3", "--dir", tmp_path)
    assert days_left(tmp_path) == {"remote-c2": 89, "remote-c3": 89}


def test_the_ca_step_by_step(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("init", "--dir", tmp_path)
    run("issue", "server-c1", "--dir", tmp_path, "--out", out)
    seen = []
    for step in ("prepare", "switch", "finish"):
        done = run("rotate", "--ca", step, "--dir", tmp_path, "--out", out)
        assert done.exit_code == 0, done.output
        cas = [row for row in json.loads(run("show", "--dir", tmp_path, "-o", "json").output) if row["kind"] == "ca"]
        (leaf,) = json.loads(run("show", "--dir", out, "-o", "json").output)
        signer = next(row["id"] for row in cas if row["signs"])
        seen.append((len(cas), len(leaf["trusts"]), leaf["issued_by"] == signer))
        assert "signs" in run("show", "--dir", tmp_path).output
    assert seen == [(2, 2, True), (2, 2, True), (1, 1, True)]


def test_what_was_done_before_a_failure_is_said(tmp_path: Path) -> None:
    run("init", "--dir", tmp_path)
    run("issue", "remote-c2", "remote-c3", "--dir", tmp_path)
    (tmp_path / "remote-c3").unlink()
    copied = next(tmp_path.glob(".remote-c3.*"))
    copied.rename(tmp_path / "remote-c3")
    done = run("rotate", "--dir", tmp_path)
    assert done.exit_code == REFUSED
    assert f"rotated remote-c2 in {tmp_path / 'remote-c2'}" in done.output
    assert "remote-c3 is a plain folder" in done.output


def test_refusals_are_clear(tmp_path: Path) -> None:
    run("init", "--dir", tmp_path)
    absent = run("rotate", "remote-c2", "--dir", tmp_path)
    assert (absent.exit_code, "not found: remote-c2" in absent.output) == (REFUSED, True)
    assert run("rotate", "--ca", "switch", "--dir", tmp_path).exit_code == REFUSED
    assert "takes no LEAF" in run("rotate", "remote-c2", "--ca", "prepare", "--dir", tmp_path).output
