"""Leaves as openssl and the x509 library see them."""

import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs.authority import Authority, init_ca, load_ca
from certs.checks import alternative_names
from certs.leaves import issue
from certs.names import CertsError, Kind, Leaf

NOW = datetime.now(UTC).replace(microsecond=0)
CLIENTS = [kind for kind in Kind if kind is not Kind.SERVER]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return init_ca(tmp_path, now=NOW)


def openssl_verifies(folder: Path, ca: Path, *options: str) -> bool:
    command = ["openssl", "verify", "-x509_strict", "-CAfile", str(ca), *options, str(folder / "tls.crt")]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def read_leaf(folder: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes())


def test_server_answers_to_its_names_only(tmp_path: Path, authority: Authority) -> None:
    leaf = Leaf(Kind.SERVER, "cluster1")
    names = ["proxy.cluster1.example"]
    folder = issue(authority, leaf, tmp_path, now=NOW, names=names, addresses=["172.18.1.10", "fd00::1"])
    assert folder == tmp_path / "server"
    expected = ("cluster1.mesh.cilium.io", "proxy.cluster1.example", "172.18.1.10", "fd00::1")
    assert alternative_names(read_leaf(folder)) == expected
    ca = folder / "ca.crt"
    assert openssl_verifies(folder, ca, "-purpose", "sslserver", "-verify_hostname", "cluster1.mesh.cilium.io")
    assert openssl_verifies(folder, ca, "-purpose", "sslserver", "-verify_ip", "172.18.1.10")
    assert not openssl_verifies(folder, ca, "-verify_hostname", "cluster2.mesh.cilium.io")
    assert not openssl_verifies(folder, ca, "-purpose", "sslclient")


@pytest.mark.parametrize("kind", CLIENTS)
def test_clients_are_clients_only(tmp_path: Path, authority: Authority, kind: Kind) -> None:
    folder = issue(authority, Leaf(kind, "cluster2"), tmp_path, now=NOW)
    assert folder.name == f"{kind}-cluster2"
    ca = tmp_path / "ca" / "ca.crt"
    assert openssl_verifies(folder, ca, "-purpose", "sslclient")
    assert not openssl_verifies(folder, ca, "-purpose", "sslserver")
    usages = read_leaf(folder).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_validity_and_key(tmp_path: Path, authority: Authority) -> None:
    folder = issue(authority, Leaf(Kind.DAEMON, "c1"), tmp_path, now=NOW)
    leaf = read_leaf(folder)
    assert leaf.not_valid_before_utc == NOW - timedelta(hours=24)
    assert leaf.not_valid_after_utc == NOW + timedelta(days=90)
    assert authority.certificate.not_valid_after_utc - NOW >= timedelta(days=3650)
    key = serialization.load_pem_private_key((folder / "tls.key").read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"
    assert key.public_key() == leaf.public_key()


def test_another_ca_does_not_verify(tmp_path: Path, authority: Authority) -> None:
    folder = issue(authority, Leaf(Kind.REMOTE, "c1"), tmp_path, now=NOW)
    other = init_ca(tmp_path / "other", now=NOW)
    assert other.certificate.subject == authority.certificate.subject
    assert not openssl_verifies(folder, tmp_path / "other" / "ca" / "ca.crt")


def test_files_are_private(tmp_path: Path, authority: Authority) -> None:
    issue(authority, Leaf(Kind.ADMIN, "c1"), tmp_path, now=NOW)
    for path in tmp_path.rglob("*"):
        if path.is_symlink():
            continue
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_leaf_never_outlives_its_ca(tmp_path: Path, authority: Authority) -> None:
    end = authority.certificate.not_valid_after_utc
    folder = issue(authority, Leaf(Kind.ADMIN, "c1"), tmp_path, now=end - timedelta(days=3))
    assert read_leaf(folder).not_valid_after_utc == end
    with pytest.raises(CertsError, match="ended"):
        issue(authority, Leaf(Kind.ADMIN, "c1"), tmp_path, now=end)


def test_another_clusters_server_is_not_replaced(tmp_path: Path, authority: Authority) -> None:
    issue(authority, Leaf(Kind.SERVER, "c1"), tmp_path, now=NOW)
    with pytest.raises(CertsError, match=r"c1\.mesh\.cilium\.io"):
        issue(authority, Leaf(Kind.SERVER, "c2"), tmp_path, now=NOW)


@pytest.mark.parametrize("name", ["*.mesh.cilium.io", "", "a..b", "-a", "a" * 64, "a b"])
def test_bad_dns_names_are_named(tmp_path: Path, authority: Authority, name: str) -> None:
    with pytest.raises(CertsError, match="invalid DNS name"):
        issue(authority, Leaf(Kind.SERVER, "c1"), tmp_path, now=NOW, names=[name])
    assert not (tmp_path / "server").exists()


def test_bad_address_is_named(tmp_path: Path, authority: Authority) -> None:
    with pytest.raises(CertsError, match=r"'172\.18\.1'"):
        issue(authority, Leaf(Kind.SERVER, "c1"), tmp_path, now=NOW, addresses=["172.18.1"])


@pytest.mark.parametrize("algorithm", ["rsa:2048", "ec"])
def test_a_ca_that_openssl_made(tmp_path: Path, algorithm: str) -> None:
    """As Cilium's, which is RSA; and without an identifier of its key, which leaves name their issuer by."""
    (tmp_path / "ca").mkdir()
    (tmp_path / "conf").write_text(
        "[req]\ndistinguished_name=dn\nx509_extensions=v3\n[dn]\n[v3]\nbasicConstraints=critical,CA:TRUE\n"
        "subjectKeyIdentifier=none\n"
    )
    command = ["openssl", "req", "-x509", "-newkey", algorithm, "-nodes", "-subj=/CN=theirs", "-days=30"]
    command += ["-pkeyopt", "ec_paramgen_curve:P-384"] if algorithm == "ec" else []
    command += ["-config", str(tmp_path / "conf"), "-keyout", str(tmp_path / "ca/ca.key")]
    subprocess.run([*command, "-out", str(tmp_path / "ca/ca.crt")], check=True, capture_output=True)
    folder = issue(load_ca(tmp_path), Leaf.parse("remote-c2"), tmp_path, now=NOW)
    command = ["openssl", "verify", "-purpose", "sslclient", "-CAfile", str(folder / "ca.crt")]
    done = subprocess.run([*command, str(folder / "tls.crt")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
