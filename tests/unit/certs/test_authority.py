from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from certs.authority import init_ca, load_ca
from certs.names import CertsError
from certs.store import replace_folder

NOW = datetime.now(UTC)


def test_loads_what_it_made(tmp_path: Path) -> None:
    made = init_ca(tmp_path / "new" / "mesh", common_name="the CA", now=NOW)
    loaded = load_ca(tmp_path / "new" / "mesh")
    assert loaded.certificate == made.certificate
    assert loaded.bundle == made.bundle
    constraints = loaded.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value.ca


def test_never_overwritten(tmp_path: Path) -> None:
    made = init_ca(tmp_path, now=NOW)
    with pytest.raises(CertsError, match="not overwritten"):
        init_ca(tmp_path, now=NOW)
    assert load_ca(tmp_path).certificate == made.certificate


def test_missing_ca_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(CertsError, match="certs init"):
        load_ca(tmp_path)


def test_mixed_pair_is_refused(tmp_path: Path) -> None:
    init_ca(tmp_path, now=NOW)
    other = init_ca(tmp_path / "other", now=NOW)
    (tmp_path / "ca" / "ca.crt").write_bytes(other.bundle)
    with pytest.raises(CertsError, match="none of its certificates"):
        load_ca(tmp_path)


def test_garbage_is_refused(tmp_path: Path) -> None:
    replace_folder(tmp_path / "ca", {"ca.crt": b"x", "ca.key": b"y"})
    with pytest.raises(CertsError, match="cannot be read"):
        load_ca(tmp_path)


def test_a_key_that_signs_no_leaves_is_named(tmp_path: Path) -> None:
    made = init_ca(tmp_path, now=NOW)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key = ed25519.Ed25519PrivateKey.generate().private_bytes(encoding, form, serialization.NoEncryption())
    replace_folder(tmp_path / "ca", {"ca.crt": made.bundle, "ca.key": key})
    with pytest.raises(CertsError, match="neither EC nor RSA"):
        load_ca(tmp_path)


def test_second_ca_of_a_bundle(tmp_path: Path) -> None:
    made = init_ca(tmp_path, now=NOW)
    old = init_ca(tmp_path / "old", now=NOW)
    (tmp_path / "ca" / "ca.crt").write_bytes(old.bundle + made.bundle)
    assert load_ca(tmp_path).certificate == made.certificate
    assert load_ca(tmp_path).bundle == old.bundle + made.bundle


def test_a_key_is_never_shown(tmp_path: Path) -> None:
    assert "key" not in repr(init_ca(tmp_path, now=NOW))
