"""Reads what certificates a directory holds, for people: never a key."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from certs.authority import CA_CERTIFICATE, CA_FOLDER, load_ca
from certs.checks import alternative_names, common_name, fingerprint, is_issued_by
from certs.leaves import CERTIFICATE
from certs.names import CertsError, kind_of


@dataclass(frozen=True, slots=True)
class Summary:
    """One certificate. `days_left` counts whole days, negative once it has ended; `problem` if it cannot be read.

    `id` is the beginning of the key's identifier; CAs of one name are told apart by it. `issued_by` names the id of
    the CA in the leaf's own bundle that signed it, empty if none did; `trusts` the ids of all CAs of that bundle.
    """

    path: str
    kind: str
    common_name: str = ""
    names: tuple[str, ...] = ()
    not_before: str = ""
    not_after: str = ""
    days_left: int = 0
    id: str = ""
    issued_by: str = ""
    trusts: tuple[str, ...] = ()
    signs: bool = False
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
            found += _summaries(file, is_ca=is_ca, now=now)
    return found


def _summaries(file: Path, *, is_ca: bool, now: datetime) -> list[Summary]:
    try:
        certificates = x509.load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError) as error:
        return [Summary(path=str(file), kind="ca" if is_ca else "other", problem=str(error))]
    bundle = certificates if is_ca else _bundle(file.parent / CA_CERTIFICATE)
    signer = _signer(file.parent.parent) if is_ca else None
    return [_summary(file, each, bundle, is_ca=is_ca, signs=each == signer, now=now) for each in certificates]


def _summary(
    file: Path,
    certificate: x509.Certificate,
    bundle: list[x509.Certificate],
    *,
    is_ca: bool,
    signs: bool,
    now: datetime,
) -> Summary:
    issuer = next((fingerprint(each) for each in bundle if is_issued_by(certificate, each)), "")
    return Summary(
        path=str(file),
        kind="ca" if is_ca else kind_of(common_name(certificate)),
        common_name=common_name(certificate),
        names=alternative_names(certificate),
        not_before=certificate.not_valid_before_utc.isoformat(),
        not_after=certificate.not_valid_after_utc.isoformat(),
        days_left=(certificate.not_valid_after_utc - now) // timedelta(days=1),
        id=fingerprint(certificate),
        issued_by=issuer,
        trusts=() if is_ca else tuple(fingerprint(each) for each in bundle),
        signs=signs,
    )


def _bundle(file: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError):
        return []


def _signer(directory: Path) -> x509.Certificate | None:
    try:
        return load_ca(directory).certificate
    except CertsError:
        return None
