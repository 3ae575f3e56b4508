from datetime import timedelta
from pathlib import Path

import pytest

from certs.authority import init_ca
from certs.checks import Fault, Purpose
from certs.files import Files, check_directory, check_files
from certs.leaves import issue
from certs.names import Leaf
from tests.support.certificates import NOW, forge, write

CA = forge("mesh CA", is_ca=True)


def faults(folder: Path, *, purpose: Purpose | None = None, name: str = "") -> list[Fault]:
    return [one.fault for one in check_files(Files.of(folder), now=NOW, purpose=purpose, name=name)]


def test_what_we_issue_is_good(tmp_path: Path) -> None:
    authority = init_ca(tmp_path, now=NOW)
    for leaf in ("server-c1", "remote-c2", "remote", "local-c1", "daemon-c1", "admin-c1"):
        issue(authority, Leaf.parse(leaf), tmp_path, now=NOW)
    found = check_directory(tmp_path, now=NOW)
    assert len(found) == 7
    assert not any(found.values())
    later = check_directory(tmp_path, now=NOW + timedelta(days=80))
    assert {one.fault for findings in later.values() for one in findings} == {Fault.EXPIRES_SOON}


@pytest.mark.parametrize("skew", [timedelta(hours=-1), timedelta(hours=1)])
def test_a_clock_that_is_an_hour_off_changes_nothing(tmp_path: Path, skew: timedelta) -> None:
    """The issuer's clock and the verifier's differ by an hour, one way or the other."""
    issue(init_ca(tmp_path, now=NOW), Leaf.parse("server-c1"), tmp_path, now=NOW)
    assert not any(check_directory(tmp_path, now=NOW + skew).values())


def test_a_key_that_does_not_match(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", forge("remote-c2", CA, usages=["client"]), CA, key=CA)
    assert faults(folder) == [Fault.KEY_MISMATCH]


def test_the_common_name_says_what_it_is_for(tmp_path: Path) -> None:
    server = write(tmp_path / "a", forge("c1.mesh.cilium.io", CA, usages=["client"], names=["c1.mesh.cilium.io"]), CA)
    assert faults(server) == [Fault.WRONG_USAGE]
    wrong = write(tmp_path / "b", forge("c1.mesh.cilium.io", CA, usages=["server"], names=["localhost"]), CA)
    assert faults(wrong) == [Fault.MISSING_NAME]
    assert faults(wrong, name="localhost") == []
    other = write(tmp_path / "c", forge("somebody", CA, usages=["client"]), CA)
    assert faults(other) == []
    assert faults(other, purpose=Purpose.SERVER) == [Fault.WRONG_USAGE, Fault.MISSING_NAME]


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", forge("remote-c2", CA), CA)
    (folder / "tls.key").write_text("no key")
    assert faults(folder) == [Fault.UNREADABLE]
    (folder / "ca.crt").write_text("no certificate")
    (folder / "tls.crt").unlink()
    found = check_files(Files.of(folder), now=NOW)
    assert [one.fault for one in found] == [Fault.UNREADABLE] * 2
    assert "tls.crt cannot be read: No such file" in found[0].text


def test_the_ca_of_a_directory(tmp_path: Path) -> None:
    init_ca(tmp_path, now=NOW)
    (tmp_path / "ca/ca.crt").write_bytes(forge("x").pem)
    (found,) = check_directory(tmp_path, now=NOW).values()
    assert [one.fault for one in found] == [Fault.NOT_A_CA, Fault.KEY_MISMATCH]
    (tmp_path / "ca/ca.crt").unlink()
    (found,) = check_directory(tmp_path, now=NOW).values()
    assert [one.fault for one in found] == [Fault.UNREADABLE]
