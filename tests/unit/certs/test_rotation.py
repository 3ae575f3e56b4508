"""Rotation as openssl sees it: at every step each end believes every leaf that may be out there."""

import os
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from certs import rotation
from certs.authority import init_ca, load_ca
from certs.checks import alternative_names, fingerprint
from certs.files import check_directory
from certs.leaves import issue
from certs.names import CertsError, Leaf
from certs.rotation import Step, rotate_ca, rotate_leaf
from certs.store import replace_folder

NOW = datetime.now(UTC)
LEAVES = [Leaf.parse("server-c1"), Leaf.parse("remote-c2"), Leaf.parse("remote")]


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    authority = init_ca(tmp_path, now=NOW)
    for leaf in LEAVES:
        addresses, names = (["127.0.0.1"], ["localhost"]) if leaf.folder == "server" else ([], [])
        issue(authority, leaf, tmp_path, now=NOW, addresses=addresses, names=names)
    return tmp_path


FILES = ["tls.crt", "tls.key", "ca.crt"]


def content(mesh: Path) -> dict[str, bytes]:
    return {f"{leaf.folder}/{name}": (mesh / leaf.folder / name).read_bytes() for leaf in LEAVES for name in FILES}


def believed(bundle: bytes, leaf: bytes, scratch: Path) -> bool:
    (scratch / "bundle").write_bytes(bundle)
    (scratch / "leaf").write_bytes(leaf)
    command = ["openssl", "verify", "-x509_strict", "-CAfile", str(scratch / "bundle"), str(scratch / "leaf")]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_a_leaf_keeps_its_names_and_changes_its_key(mesh: Path) -> None:
    before = content(mesh)
    folder = rotate_leaf(load_ca(mesh), LEAVES[0], mesh, now=NOW + timedelta(days=60))
    leaf = x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes())
    assert alternative_names(leaf) == ("c1.mesh.cilium.io", "localhost", "127.0.0.1")
    assert leaf.not_valid_after_utc > NOW + timedelta(days=149)
    after = content(mesh)
    assert {name for name in after if after[name] != before[name]} == {"server/tls.crt", "server/tls.key"}
    assert not any(check_directory(mesh, now=NOW + timedelta(days=60)).values())


def test_nobody_refuses_anybody_while_the_ca_is_rotated(mesh: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Files reach the ends at different times: at each step any end may still have those of the step before."""
    scratch = tmp_path_factory.mktemp("scratch")
    states = [content(mesh)]
    for step in Step:
        rotate_ca(mesh, [mesh], step, now=NOW)
        assert not any(check_directory(mesh, now=NOW).values())
        states.append(content(mesh))
        for theirs, ours in ((states[-2], states[-1]), (states[-1], states[-2])):
            for one in LEAVES:
                for other in LEAVES:
                    assert believed(theirs[f"{one.folder}/ca.crt"], ours[f"{other.folder}/tls.crt"], scratch), step
    first, last = states[0], states[-1]
    assert not believed(last["server/ca.crt"], first["remote-c2/tls.crt"], scratch)
    assert not believed(first["server/ca.crt"], last["remote-c2/tls.crt"], scratch)
    assert sorted(path.name for path in (mesh / "ca").iterdir()) == ["ca.crt", "ca.key"]


def test_steps_may_be_repeated_but_not_skipped(mesh: Path) -> None:
    start = load_ca(mesh)
    with pytest.raises(CertsError, match="run the step `prepare` first"):
        rotate_ca(mesh, [mesh], Step.SWITCH, now=NOW)
    for _ in range(2):
        rotate_ca(mesh, [mesh], Step.PREPARE, now=NOW)
    assert len(x509.load_pem_x509_certificates(load_ca(mesh).bundle)) == 2
    assert load_ca(mesh).certificate == start.certificate
    with pytest.raises(CertsError, match="run the step `switch` first"):
        rotate_ca(mesh, [mesh], Step.FINISH, now=NOW)
    for _ in range(2):
        rotate_ca(mesh, [mesh], Step.SWITCH, now=NOW)
    with pytest.raises(CertsError, match="run the step `finish` first"):
        rotate_ca(mesh, [mesh], Step.PREPARE, now=NOW)
    before = content(mesh)
    said = [rotate_ca(mesh, [mesh], Step.FINISH, now=NOW) for _ in range(2)]
    assert said[0][-1] == f"{mesh / 'server'} no longer believes the old CA"
    assert [line.partition("; ")[2] for line in said[1]] == ["no rotation was under way"]
    after = content(mesh)
    assert {name for name in after if after[name] != before[name]} == {f"{leaf.folder}/ca.crt" for leaf in LEAVES}
    assert fingerprint(load_ca(mesh).certificate) != fingerprint(start.certificate)


def test_an_interrupted_step_is_run_again(mesh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write is the last one before the disk is full, for each step; after it the step goes on where it was."""
    replace = replace_folder
    for step in Step:
        for allowed in range(4):
            left = [allowed]

            def fail_later(folder: Path, files: Mapping[str, bytes], left: list[int] = left) -> None:
                left[0] -= 1
                if left[0] < 0:
                    raise OSError("no space left on device")
                replace(folder, files)

            monkeypatch.setattr(rotation, "replace_folder", fail_later)
            try:
                rotate_ca(mesh, [mesh], step, now=NOW)
            except OSError:
                assert load_ca(mesh)
        monkeypatch.setattr(rotation, "replace_folder", replace)
        rotate_ca(mesh, [mesh], step, now=NOW)
        assert not any(check_directory(mesh, now=NOW).values())
    assert len(x509.load_pem_x509_certificates(load_ca(mesh).bundle)) == 1


def test_a_ca_of_another_mesh_stays_in_the_bundle(mesh: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = init_ca(tmp_path_factory.mktemp("other"), now=NOW)
    bundle = mesh / "ca/ca.crt"
    bundle.write_bytes(bundle.read_bytes() + other.bundle)
    for step in Step:
        rotate_ca(mesh, [mesh], step, now=NOW)
    bundles = x509.load_pem_x509_certificates((mesh / "server/ca.crt").read_bytes())
    assert other.certificate in bundles
    assert len(bundles) == 2


def test_leaves_elsewhere_take_part(mesh: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    away = tmp_path_factory.mktemp("away")
    issue(load_ca(mesh), Leaf.parse("daemon-c3"), away, now=NOW)
    rotate_ca(mesh, [mesh, away], Step.PREPARE, now=NOW)
    rotate_ca(mesh, [mesh], Step.SWITCH, now=NOW)  # one is forgotten …
    with pytest.raises(CertsError, match=r"still of the old CA: .*daemon-c3"):
        rotate_ca(mesh, [mesh, away], Step.FINISH, now=NOW)  # … and not shut out
    rotate_ca(mesh, [mesh, away], Step.SWITCH, now=NOW)
    rotate_ca(mesh, [mesh, away], Step.FINISH, now=NOW)
    assert not any(check_directory(away, now=NOW).values())


def test_a_bundle_that_lacks_the_next_ca_stops_the_switch(mesh: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    rotate_ca(mesh, [mesh], Step.PREPARE, now=NOW)
    away = tmp_path_factory.mktemp("away")
    old = init_ca(tmp_path_factory.mktemp("old"), now=NOW)
    issue(old, Leaf.parse("daemon-c3"), away, now=NOW)
    with pytest.raises(CertsError, match="do not believe the next CA yet"):
        rotate_ca(mesh, [mesh, away], Step.SWITCH, now=NOW)
    assert (mesh / "ca/next.key").exists()


def test_strange_leaves_are_named(mesh: Path) -> None:
    os.rename(mesh / "remote-c2", mesh / "moved")
    with pytest.raises(CertsError, match="make it with `meshd certs issue`"):
        rotate_leaf(load_ca(mesh), LEAVES[1], mesh, now=NOW)
