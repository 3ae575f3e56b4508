"""Checks certificate files as the other end will find them: alone, or all that a directory holds."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from certs.authority import CA_CERTIFICATE, CA_FOLDER, CA_KEY
from certs.checks import Fault, Finding, Purpose, check_ca, check_chain, common_name, usages
from certs.leaves import CERTIFICATE, KEY
from certs.names import Kind, kind_of

_READABLE = "make it readable for this user, or give the right path"


@dataclass(frozen=True, slots=True)
class Files:
    """The three files of a TLS end."""

    certificate: Path
    key: Path
    authorities: Path

    @classmethod
    def of(cls, folder: Path) -> "Files":
        """Those of one generation of a leaf's folder."""
        resolved = folder.resolve()
        return cls(resolved / CERTIFICATE, resolved / KEY, resolved / CA_CERTIFICATE)


def check_files(
    files: Files, *, now: datetime, purpose: Purpose | None = None, name: str = "", subject: str = ""
) -> list[Finding]:
    """What is wrong with a leaf and its key, for an end that believes the CAs of the third file.

    Without `purpose` it is what the common name, or else the certificate, says it is for; a server of ours must
    answer to its common name. `subject` is what findings call the leaf, its file if not given.
    """
    subject = subject or str(files.certificate)
    chain = read_certificates(files.certificate, subject)
    authorities = read_certificates(files.authorities, subject)
    unreadable = [read for read in (chain, authorities) if isinstance(read, Finding)]
    if isinstance(chain, Finding) or isinstance(authorities, Finding):
        return unreadable
    purpose = purpose or intended_purpose(chain[0])
    if not name and purpose is Purpose.SERVER and kind_of(common_name(chain[0])) == Kind.SERVER:
        name = common_name(chain[0])
    found = check_chain(subject, chain, authorities, purpose=purpose, name=name, now=now)
    return [*check_key(files.key, chain[:1], subject), *found]


def check_directory(directory: Path, *, now: datetime) -> dict[str, list[Finding]]:
    """What is wrong with each CA and leaf of a directory as `issue` fills it. Raises OSError."""
    found: dict[str, list[Finding]] = {}
    for folder in sorted(directory.iterdir()):
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        if folder.name == CA_FOLDER:
            found[str(folder)] = list(check_authority(folder, now=now))
        elif (folder / CERTIFICATE).exists() or (folder / KEY).exists():
            found[str(folder)] = check_files(Files.of(folder), now=now, subject=str(folder))
    return found


def check_authority(folder: Path, *, now: datetime) -> Iterator[Finding]:
    """What stops the CA of a directory from signing, or the CAs of its bundle from being believed."""
    resolved, subject = folder.resolve(), str(folder)
    bundle = read_certificates(resolved / CA_CERTIFICATE, subject)
    if isinstance(bundle, Finding):
        yield bundle
        return
    for certificate in bundle:
        yield from check_ca(subject, certificate, now=now)
    yield from check_key(resolved / CA_KEY, bundle, subject)


def check_key(path: Path, certificates: list[x509.Certificate], subject: str) -> Iterator[Finding]:
    """Whether the key belongs to one of the certificates."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        yield Finding(subject, Fault.UNREADABLE, f"{path} cannot be read: {error.strerror}", _READABLE)
        return
    except (ValueError, TypeError):
        remedy = "give a key in PEM, without a passphrase"
        yield Finding(subject, Fault.UNREADABLE, f"{path} is no unencrypted PEM key", remedy)
        return
    if all(certificate.public_key() != key.public_key() for certificate in certificates):
        text = f"{path} is not the key of {common_name(certificates[0])}"
        yield Finding(subject, Fault.KEY_MISMATCH, text, "use the two that were issued together, or issue anew")


def read_certificates(path: Path, subject: str) -> list[x509.Certificate] | Finding:
    """All certificates of a PEM file, at least one."""
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        return Finding(subject, Fault.UNREADABLE, f"{path} cannot be read: {error.strerror}", _READABLE)
    except ValueError:
        return Finding(subject, Fault.UNREADABLE, f"{path} holds no PEM certificate", "give a PEM file")


def intended_purpose(leaf: x509.Certificate) -> Purpose:
    """What a leaf is meant to be, whatever its extensions say."""
    match kind_of(common_name(leaf)):
        case Kind.SERVER:
            return Purpose.SERVER
        case "other":
            return (*usages(leaf), Purpose.CLIENT)[0]
        case _:
            return Purpose.CLIENT
