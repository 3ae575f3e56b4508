"""Reads what certificates a directory holds, for people: never a key."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from certs.authority import CA_CERTIFICATE, CA_FOLDER
from certs.leaves import CERTIFICATE
from certs.names import kind_of


@dataclass(frozen=True, slots=True)
class Summary:
    """One certificate. `days_left` counts whole days, negative once it has ended; `problem` if it cannot be read."""

    path: str
    kind: str
    common_name: str = ""
    names: tuple[str, ...] = ()
    not_before: str = ""
    not_after: str = ""
    days_left: int = 0
    problem: str = ""


def list_certificates(directory: Path, *, now: datetime) -> list[Summary]:
    """All certificates of a directory, the CA first. Raises OSError if the directory cannot be read."""
    found: list[Summary] = []
    for folder in sorted(directory.iterdir(), key=lambda path: (path.name != CA_FOLDER, path.name)):
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        is_ca = folder.name == CA_FOLDER
        file = folder / (CA_CERTIFICATE if is_ca else CERTIFICATE)
        if file.exists():
            found += read_certificates(file, is_ca=is_ca, now=now)
    return found


def read_certificates(file: Path, *, is_ca: bool, now: datetime) -> list[Summary]:
    """The certificates of one PEM file."""
    try:
        certificates = x509.load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError) as error:
        return [Summary(path=str(file), kind="ca" if is_ca else "other", problem=str(error))]
    return [_summary(file, certificate, is_ca=is_ca, now=now) for certificate in certificates]


def _summary(file: Path, certificate: x509.Certificate, *, is_ca: bool, now: datetime) -> Summary:
    common_names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    common_name = str(common_names[0].value) if common_names else ""
    return Summary(
        path=str(file),
        kind="ca" if is_ca else kind_of(common_name),
        common_name=common_name,
        names=alternative_names(certificate),
        not_before=certificate.not_valid_before_utc.isoformat(),
        not_after=certificate.not_valid_after_utc.isoformat(),
        days_left=(certificate.not_valid_after_utc - now) // timedelta(days=1),
    )


def alternative_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """DNS names and IPs that a certificate answers to."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return (
        *names.get_values_for_type(x509.DNSName),
        *(str(address) for address in names.get_values_for_type(x509.IPAddress)),
    )
