"""The certificate authority of a mesh: made once, loaded to sign leaves. ECDSA P-256, valid for 10 years.

One that was made elsewhere may have another elliptic curve, or RSA as Cilium's.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from certs.names import CertsError
from certs.store import replace_folder

CA_FOLDER = "ca"
CA_CERTIFICATE = "ca.crt"
CA_KEY = "ca.key"
CA_VALIDITY = timedelta(days=3652)
BACKDATING = timedelta(hours=24)  # a verifier whose clock is behind must not see a certificate of the future
DEFAULT_COMMON_NAME = "meshd CA"

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Authority:
    """What signs leaves. `bundle` is the PEM text that verifiers get: this CA's certificate, perhaps another's too."""

    certificate: x509.Certificate
    key: SigningKey = field(repr=False)
    bundle: bytes


def init_ca(directory: Path, *, common_name: str = DEFAULT_COMMON_NAME, now: datetime) -> Authority:
    """Makes a CA in `<directory>/ca/`. Raises CertsError if there is one already, OSError if it cannot be written."""
    folder = directory / CA_FOLDER
    if folder.exists() or folder.is_symlink():
        raise CertsError(f"{folder} exists already: a CA is not overwritten; use it, or choose another directory")
    made = make_ca(common_name, now=now)
    replace_folder(folder, {CA_CERTIFICATE: made.bundle, CA_KEY: encode_key(made.key)})
    return made


def make_ca(common_name: str, *, now: datetime) -> Authority:
    """A new CA that stands nowhere yet. Raises CertsError for an impossible name."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _self_sign(key, subject(common_name), now=now)
    return Authority(certificate, key, certificate.public_bytes(serialization.Encoding.PEM))


def load_ca(directory: Path) -> Authority:
    """Reads the CA in `<directory>/ca/`; raises CertsError if it is missing, unreadable or not a matching pair."""
    folder = directory / CA_FOLDER
    try:
        resolved = folder.resolve(strict=True)
        bundle = (resolved / CA_CERTIFICATE).read_bytes()
        key = serialization.load_pem_private_key((resolved / CA_KEY).read_bytes(), password=None)
        certificates = x509.load_pem_x509_certificates(bundle)
    except FileNotFoundError as error:
        raise CertsError(
            f"no CA in {directory}: {error.filename} is missing; make one with `meshd certs init`"
        ) from error
    except (OSError, ValueError, TypeError) as error:
        raise CertsError(f"the CA in {folder} cannot be read: {error}") from error
    if not isinstance(key, SigningKey):
        raise CertsError(f"the CA in {folder} cannot sign: its key is neither EC nor RSA; use another CA")
    for certificate in certificates:
        if certificate.public_key() == key.public_key():
            return Authority(certificate, key, bundle)
    raise CertsError(f"the CA in {folder} is broken: its key belongs to none of its certificates; restore the pair")


def subject(common_name: str) -> x509.Name:
    try:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    except ValueError as error:
        raise CertsError(f"invalid common name {common_name!r}: it must have 1 to 64 characters") from error


def encode_key(key: SigningKey) -> bytes:
    """The key as unencrypted PKCS#8 PEM, which grpc and openssl read."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _self_sign(key: ec.EllipticCurvePrivateKey, name: x509.Name, *, now: datetime) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATING)
        .not_valid_after(now + CA_VALIDITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
