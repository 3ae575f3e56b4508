"""What a TLS end needs, read from files that belong together: certificate, key and the CAs it believes."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from certs.names import CertsError


@dataclass(frozen=True, slots=True)
class Pair:
    """PEM texts. The key never shows in a log or an error."""

    certificate: bytes
    key: bytes = field(repr=False)
    authorities: bytes

    def days_left(self, now: datetime) -> int:
        """Whole days until the certificate ends, negative afterwards."""
        leaf = x509.load_pem_x509_certificates(self.certificate)[0]
        return (leaf.not_valid_after_utc - now) // timedelta(days=1)


def load_pair(certificate: Path, key: Path, authorities: Path) -> Pair:
    """Reads the three files and checks that the key is the certificate's; raises CertsError.

    Files of one folder are read from the same generation of it, even while it is replaced.
    """
    folders: dict[Path, Path] = {}
    pair = Pair(*(_read(path, folders) for path in (certificate, key, authorities)))
    try:
        leaf = x509.load_pem_x509_certificates(pair.certificate)[0]
    except ValueError as error:
        raise CertsError(f"{certificate} is no PEM certificate: {error}") from error
    try:
        own_key = serialization.load_pem_private_key(pair.key, password=None)
    except (ValueError, TypeError) as error:
        raise CertsError(f"{key} is no unencrypted PEM key") from error
    if own_key.public_key() != leaf.public_key():
        raise CertsError(f"{key} is not the key of {certificate}: give the two that were issued together")
    try:
        x509.load_pem_x509_certificates(pair.authorities)
    except ValueError as error:
        raise CertsError(f"{authorities} is no PEM file of CA certificates: {error}") from error
    return pair


def _read(path: Path, folders: dict[Path, Path]) -> bytes:
    try:
        folder = folders.setdefault(path.parent, path.parent.resolve(strict=True))
        return (folder / path.name).read_bytes()
    except OSError as error:
        raise CertsError(f"{path} cannot be read: {error.strerror}") from error
