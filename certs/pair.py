"""What a TLS end needs, read from files that belong together: certificate, key and the CAs it believes."""

import os
import ssl
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from certs.checks import Purpose, check_use
from certs.names import CertsError


@dataclass(frozen=True, slots=True)
class Pair:
    """PEM texts. The key never shows in a log or an error."""

    certificate: bytes
    key: bytes = field(repr=False)
    authorities: bytes

    def load_into(self, context: ssl.SSLContext) -> None:
        """What this end shows, and whom it believes. Raises ssl.SSLError for what `load_pair` would refuse."""
        context.load_verify_locations(cadata=self.authorities.decode("ascii"))
        # OpenSSL wants files, and these texts must be the ones that were checked: files in memory, gone when closed.
        chain, key = os.memfd_create("certificate"), os.memfd_create("key")
        try:
            for descriptor, text in ((chain, self.certificate), (key, self.key)):
                with open(descriptor, "wb", closefd=False) as file:
                    file.write(text)
            context.load_cert_chain(f"/proc/self/fd/{chain}", f"/proc/self/fd/{key}")
        finally:
            os.close(chain)
            os.close(key)

    def days_left(self, now: datetime) -> int:
        """Whole days until the certificate ends, negative afterwards."""
        return (self.leaf.not_valid_after_utc - now) // timedelta(days=1)

    @property
    def leaf(self) -> x509.Certificate:
        return x509.load_pem_x509_certificates(self.certificate)[0]

    def misuse(self, purpose: Purpose) -> str:
        """Why every other end will refuse the certificate as that, whatever it believes; empty if it need not."""
        return "; ".join(finding.text for finding in check_use("", self.leaf, purpose=purpose, name=""))


def load_pair(certificate: Path, key: Path, authorities: Path) -> Pair:
    """Reads the three files. Raises CertsError if the key is not the certificate's, or OpenSSL cannot use them.

    Of the CAs only the certificates are kept: what is written between them may be in any language.

    Files of one folder are read from the same generation of it, even while it is replaced.
    """
    folders: dict[Path, Path] = {}
    chain, own, bundle = (_read(path, folders) for path in (certificate, key, authorities))
    try:
        leaf = x509.load_pem_x509_certificates(chain)[0]
    except ValueError as error:
        raise CertsError(f"{certificate} is no PEM certificate: {error}") from error
    try:
        own_key = serialization.load_pem_private_key(own, password=None)
    except (ValueError, TypeError) as error:
        raise CertsError(f"{key} is no unencrypted PEM key") from error
    if own_key.public_key() != leaf.public_key():
        raise CertsError(f"{key} is not the key of {certificate}: give the two that were issued together")
    try:
        believed = x509.load_pem_x509_certificates(bundle)
    except ValueError as error:
        raise CertsError(f"{authorities} is no PEM file of CA certificates: {error}") from error
    pair = Pair(chain, own, b"".join(each.public_bytes(serialization.Encoding.PEM) for each in believed))
    try:
        pair.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    except ssl.SSLError as error:
        why = (error.reason or str(error)).replace("_", " ").lower()
        raise CertsError(f"OpenSSL does not take {certificate} and {authorities} ({why}): issue others") from error
    return pair


def _read(path: Path, folders: dict[Path, Path]) -> bytes:
    try:
        folder = folders.setdefault(path.parent, path.parent.resolve(strict=True))
        return (folder / path.name).read_bytes()
    except OSError as error:
        raise CertsError(f"{path} cannot be read: {error.strerror}") from error
