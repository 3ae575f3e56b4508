import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from click.testing import CliRunner

from certs.authority import init_ca
from certs.command import certs
from certs.inspection import list_certificates

REFUSED = 3


def test_init_issue_show(tmp_path: Path) -> None:
    run = CliRunner().invoke
    assert run(certs, ["init", "--dir", str(tmp_path)]).exit_code == 0
    leaves = ["server-c1", "remote-c2", "--ip", "127.0.0.1", "--name", "localhost"]
    issued = run(certs, ["issue", *leaves, "--dir", str(tmp_path)])
    assert issued.exit_code == 0, issued.output
    shown = run(certs, ["show", "--dir", str(tmp_path), "-o", "json"])
    rows = json.loads(shown.output)
    assert [row["kind"] for row in rows] == ["ca", "remote", "server"]
    assert rows[2]["names"] == ["c1.mesh.cilium.io", "localhost", "127.0.0.1"]
    assert rows[2]["days_left"] == 89
    table = run(certs, ["show", "--dir", str(tmp_path)]).output
    assert "remote-c2" in table
    assert "PRIVATE" not in issued.output + shown.output + table


def test_refusals_are_clear(tmp_path: Path) -> None:
    run = CliRunner().invoke
    no_ca = run(certs, ["issue", "server-c1", "--dir", str(tmp_path)])
    assert (no_ca.exit_code, "certs init" in no_ca.output) == (REFUSED, True)
    init_ca(tmp_path, now=datetime.now(UTC))
    assert run(certs, ["init", "--dir", str(tmp_path)]).exit_code == REFUSED
    assert "unknown leaf" in run(certs, ["issue", "boss-c1", "--dir", str(tmp_path)]).output
    both = run(certs, ["issue", "server-c1", "remote-C2", "--dir", str(tmp_path)])
    assert "invalid cluster name 'C2'" in both.output
    assert not (tmp_path / "server").exists()  # all names are checked before the first is issued
    run(certs, ["issue", "server-c1", "--dir", str(tmp_path)])
    other = run(certs, ["issue", "server-c2", "--dir", str(tmp_path)])
    assert "server holds a certificate of c1.mesh.cilium.io, not c2.mesh.cilium.io" in other.output


def test_folders_without_certificates_are_named(tmp_path: Path) -> None:
    run = CliRunner().invoke
    nothing = run(certs, ["show", "--dir", str(tmp_path)])
    assert (nothing.exit_code, nothing.output) == (0, f"no certificate is in {tmp_path}\n")
    absent = run(certs, ["show", "--dir", str(tmp_path / "none")])
    assert absent.exit_code == REFUSED
    assert f"Error: {tmp_path / 'none'}: No such file or directory; is it the right path" in absent.output


def test_expired_and_unreadable_are_shown(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    init_ca(tmp_path, now=now)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "tls.crt").write_text("nothing")
    ca, broken = list_certificates(tmp_path, now=now + timedelta(days=4000))
    assert ca.days_left < 0
    assert broken.problem
