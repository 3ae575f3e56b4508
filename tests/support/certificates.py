"""Certificates as nobody should issue them, to see them refused."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Forged:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        return self.key.private_bytes(encoding, form, serialization.NoEncryption())


def forge(
    name: str = "leaf",
    issuer: Forged | None = None,
    *,
    is_ca: bool | None = False,
    usages: Sequence[str] | None = None,
    names: Sequence[str] = (),
    begins: datetime = NOW - DAY,
    ends: datetime = NOW + 200 * DAY,
) -> Forged:
    """A certificate with exactly this; `None` leaves the extension out. Without an issuer it signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder(subject_name=subject, public_key=key.public_key())
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )
    if is_ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    if usages is not None:
        oids = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
        builder = builder.add_extension(x509.ExtendedKeyUsage([oids[usage] for usage in usages]), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
    return Forged(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


def write(folder: Path, leaf: Forged, *authorities: Forged, key: Forged | None = None) -> Path:
    """A folder with tls.crt, tls.key and ca.crt."""
    folder.mkdir(parents=True)
    (folder / "tls.crt").write_bytes(leaf.pem)
    (folder / "tls.key").write_bytes((key or leaf).key_pem)
    (folder / "ca.crt").write_bytes(b"".join(authority.pem for authority in authorities))
    return folder
