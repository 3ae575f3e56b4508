import ssl
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from certs.authority import init_ca
from certs.leaves import issue
from certs.names import CertsError, Leaf
from certs.pair import load_pair

NOW = datetime.now(UTC)


def test_reads_what_was_issued(tmp_path: Path) -> None:
    authority = init_ca(tmp_path, now=NOW)
    folder = issue(authority, Leaf.parse("server-c1"), tmp_path, now=NOW)
    pair = load_pair(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
    assert pair.certificate == (folder / "tls.crt").read_bytes()
    assert pair.authorities == authority.bundle
    assert "PRIVATE" not in repr(pair)


def test_problems_are_named(tmp_path: Path) -> None:
    authority = init_ca(tmp_path, now=NOW)
    one = issue(authority, Leaf.parse("server-c1"), tmp_path, now=NOW)
    two = issue(authority, Leaf.parse("remote-c1"), tmp_path, now=NOW)
    ca = one / "ca.crt"
    with pytest.raises(CertsError, match="is not the key of"):
        load_pair(one / "tls.crt", two / "tls.key", ca)
    with pytest.raises(CertsError, match="cannot be read: No such file"):
        load_pair(one / "none.crt", one / "tls.key", ca)
    with pytest.raises(CertsError, match="no PEM certificate"):
        load_pair(one / "tls.key", one / "tls.key", ca)
    with pytest.raises(CertsError, match="no unencrypted PEM key"):
        load_pair(one / "tls.crt", one / "tls.crt", ca)
    with pytest.raises(CertsError, match="CA certificates"):
        load_pair(one / "tls.crt", one / "tls.key", one / "tls.key")


@pytest.mark.parametrize("remark", ["# Főtanúsítvány\n".encode(), "# für alle\n".encode("latin-1")])
def test_remarks_between_cas_are_in_any_language(tmp_path: Path, remark: bytes) -> None:
    authority = init_ca(tmp_path, now=NOW)
    folder = issue(authority, Leaf.parse("server-c1"), tmp_path, now=NOW)
    (tmp_path / "cas.crt").write_bytes(remark + authority.bundle + remark)
    pair = load_pair(folder / "tls.crt", folder / "tls.key", tmp_path / "cas.crt")
    assert pair.authorities == authority.bundle
    pair.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


def test_what_openssl_does_not_take_is_named(tmp_path: Path) -> None:
    """Debian's OpenSSL takes no RSA key of less than 2048 bits."""
    files = tmp_path / "weak.crt", tmp_path / "weak.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:1024", "-nodes", "-subj=/CN=weak", "-days=30"]
    subprocess.run([*command, "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    with pytest.raises(CertsError, match=r"does not take .*weak\.crt.*key too small"):
        load_pair(*files, files[0])
