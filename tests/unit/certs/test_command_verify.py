import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from certs.authority import init_ca
from certs.command import certs
from certs.leaves import issue
from certs.names import Leaf
from tests.support.certificates import forge, write

OK, DEGRADED, BROKEN, REFUSED = 0, 1, 2, 3


def verify(*arguments: str | Path) -> Result:
    return CliRunner().invoke(certs, ["verify", *map(str, arguments)])


def test_a_good_directory(tmp_path: Path) -> None:
    authority = init_ca(tmp_path, now=datetime.now(UTC))
    issue(authority, Leaf.parse("remote-c2"), tmp_path, now=datetime.now(UTC))
    done = verify("--dir", tmp_path)
    assert done.exit_code == OK
    assert [line[0] for line in done.output.splitlines()] == ["✓", "✓"]


def test_what_ends_soon_and_what_has_ended(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = init_ca(tmp_path, now=now)
    issue(authority, Leaf.parse("remote-c2"), tmp_path, now=now - timedelta(days=80))
    soon = verify("--dir", tmp_path)
    assert soon.exit_code == DEGRADED
    assert "expires-soon: remote-c2" in soon.output
    issue(authority, Leaf.parse("remote-c3"), tmp_path, now=now - timedelta(days=100))
    ended = verify("--dir", tmp_path, "-o", "json")
    assert ended.exit_code == BROKEN
    found = json.loads(ended.output)
    assert [one["fault"] for one in found[str(tmp_path / "remote-c3")]] == ["expired"]
    assert found[str(tmp_path / "ca")] == []


def test_one_folder_or_three_files(tmp_path: Path) -> None:
    ca = forge("mesh CA", is_ca=True)
    folder = write(tmp_path / "x", forge("c1.mesh.cilium.io", ca, names=["c1.mesh.cilium.io"]), ca)
    assert verify("--folder", folder).exit_code == OK
    files = ("--cert", folder / "tls.crt", "--key", folder / "tls.key", "--ca", folder / "ca.crt")
    assert verify(*files).exit_code == OK
    other = verify(*files, "--name", "c2.mesh.cilium.io")
    assert other.exit_code == BROKEN
    assert "missing-name: c1.mesh.cilium.io" in other.output
    assert "→ issue it with that name" in other.output
    assert verify(*files, "--as", "client").exit_code == OK


def test_usage_errors_are_clear(tmp_path: Path) -> None:
    assert "give --dir, or --folder, or all of" in verify("--cert", tmp_path / "x").output
    folder = tmp_path / "x"
    assert verify().exit_code == REFUSED
    assert "give HOST:PORT" in verify("--folder", folder, "--connect", "nowhere", "--name", "x").output
    assert "needs --name" in verify("--folder", folder, "--connect", "127.0.0.1:1").output
    assert "goes with no" in verify("--dir", tmp_path, "--folder", folder).output
    assert "goes with no" in verify("--dir", tmp_path, "--name", "x").output
    assert verify("--dir", tmp_path / "none").exit_code == REFUSED
    nothing = verify("--dir", tmp_path)
    assert (nothing.exit_code, "no certificate is in" in nothing.output) == (REFUSED, True)


@pytest.mark.parametrize("address", ["a..b:1", ".foo:1", ":1", "127.0.0.1:99999", "127.0.0.1:-1", "é:1"])
def test_an_address_that_cannot_be_one(tmp_path: Path, address: str) -> None:
    done = verify("--folder", tmp_path, "--connect", address, "--name", "c1.mesh.cilium.io")
    assert (done.exit_code, "give HOST:PORT" in done.output) == (REFUSED, True)


@pytest.mark.parametrize("name", [".", ".foo", "a..b", "*.mesh.cilium.io", "x" * 300])
def test_a_name_that_cannot_be_one(tmp_path: Path, name: str) -> None:
    done = verify("--folder", tmp_path, "--connect", "127.0.0.1:1", "--name", name)
    assert (done.exit_code, "give a DNS name" in done.output) == (REFUSED, True)


def test_a_probe_of_nothing(tmp_path: Path) -> None:
    ca = forge("mesh CA", is_ca=True)
    folder = write(tmp_path / "x", forge("remote-c2", ca), ca)
    done = verify("--folder", folder, "--connect", "127.0.0.1:1", "--name", "c1.mesh.cilium.io")
    assert done.exit_code == BROKEN
    assert "unreachable: no connection: Connection refused" in done.output
