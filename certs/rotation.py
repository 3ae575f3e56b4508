"""Replaces leaves and the CA under running proxies and readers, without a moment in which an end refuses another.

A leaf: a new key and certificate with the names of the old one, in one step. The CA, in three, each to be brought to
all ends before the next, so that at any time each end believes the issuer of every leaf that it may meet:

    prepare   a new CA is made; every bundle holds old and new; the old one still signs
    switch    the new one signs; all leaves are issued anew; bundles still hold both
    finish    bundles no longer hold the old one

Which step was last is read from the CA's folder: `next.crt` and `next.key` stand there after prepare, `previous.crt`
after switch. So a step that was interrupted is simply run again. CAs of other meshes in the bundle stay.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from certs.authority import CA_CERTIFICATE, CA_FOLDER, CA_KEY, Authority, encode_key, load_ca, make_ca
from certs.checks import common_name, describe, is_issued_by
from certs.leaves import CERTIFICATE, issue
from certs.names import CertsError, Kind, Leaf, kind_of, server_name
from certs.store import replace_folder

_NEXT_CERTIFICATE, _NEXT_KEY, _PREVIOUS = "next.crt", "next.key", "previous.crt"


class Step(StrEnum):
    PREPARE = "prepare"
    SWITCH = "switch"
    FINISH = "finish"


def list_leaves(directory: Path) -> list[Leaf]:
    """The leaves that stand in a directory. Raises CertsError for one that cannot be read, OSError."""
    return [_leaf_of(folder) for folder in _leaf_folders([directory])]


def rotate_leaf(authority: Authority, leaf: Leaf, directory: Path, *, now: datetime) -> Path:
    """Issues a leaf anew with the names that it has; returns its folder. Raises CertsError or OSError."""
    names, addresses = _other_names(_read_leaf(directory / leaf.folder), leaf)
    return issue(authority, leaf, directory, now=now, names=names, addresses=addresses)


def ends_within(leaf: Leaf, directory: Path, span: timedelta, *, now: datetime) -> bool:
    """Whether so little of a leaf's time is left. Raises CertsError if it cannot be read."""
    return _read_leaf(directory / leaf.folder).not_valid_after_utc - now < span


def rotate_ca(directory: Path, leaves: Sequence[Path], step: Step, *, now: datetime) -> list[str]:
    """Takes one step for the CA of `directory` and the leaves that stand in the directories `leaves`.

    Says what was done, a line each. Raises CertsError if it is not this step's turn, or OSError.
    """
    authority = load_ca(directory)
    files = _read_files(directory / CA_FOLDER)
    match step:
        case Step.PREPARE:
            return _prepare(authority, files, directory, leaves, now=now)
        case Step.SWITCH:
            return _switch(authority, files, directory, leaves, now=now)
        case Step.FINISH:
            return _finish(authority, files, directory, leaves)


def _prepare(
    authority: Authority, files: dict[str, bytes], directory: Path, leaves: Sequence[Path], *, now: datetime
) -> list[str]:
    if _PREVIOUS in files:
        raise CertsError(f"{directory / CA_FOLDER}: the last rotation is not finished; run the step `finish` first")
    if _NEXT_CERTIFICATE not in files:
        new = make_ca(common_name(authority.certificate), now=now)
        bundle = authority.bundle.rstrip() + b"\n" + new.bundle
        files |= {CA_CERTIFICATE: bundle, _NEXT_CERTIFICATE: new.bundle, _NEXT_KEY: encode_key(new.key)}
        replace_folder(directory / CA_FOLDER, files)
    new_certificate = x509.load_pem_x509_certificate(files[_NEXT_CERTIFICATE])
    return [f"made {describe(new_certificate)}; {describe(authority.certificate)} still signs"] + [
        f"{folder} believes both" for folder in _renew_bundles(leaves, files[CA_CERTIFICATE])
    ]


def _switch(
    authority: Authority, files: dict[str, bytes], directory: Path, leaves: Sequence[Path], *, now: datetime
) -> list[str]:
    if _PREVIOUS not in files:
        if _NEXT_KEY not in files:
            raise CertsError(f"{directory / CA_FOLDER}: there is no next CA; run the step `prepare` first")
        previous = authority.certificate.public_bytes(serialization.Encoding.PEM)
        _refuse_leaves_without(x509.load_pem_x509_certificate(files[_NEXT_CERTIFICATE]), leaves)
        files = files | {CA_KEY: files.pop(_NEXT_KEY), _PREVIOUS: previous}
        del files[_NEXT_CERTIFICATE]
        replace_folder(directory / CA_FOLDER, files)
        authority = load_ca(directory)
    done = [f"{describe(authority.certificate)} signs from now on"]
    for folder in _leaf_folders(leaves):
        if not is_issued_by(_read_leaf(folder), authority.certificate):
            rotate_leaf(authority, _leaf_of(folder), folder.parent, now=now)
        done.append(f"{folder} is of the new CA and believes both")
    return done


def _finish(authority: Authority, files: dict[str, bytes], directory: Path, leaves: Sequence[Path]) -> list[str]:
    if _NEXT_KEY in files:
        raise CertsError(f"{directory / CA_FOLDER}: the next CA does not sign yet; run the step `switch` first")
    if _PREVIOUS in files:
        previous = x509.load_pem_x509_certificate(files.pop(_PREVIOUS))
        _refuse_leaves_of(previous, leaves)
        kept = [each for each in x509.load_pem_x509_certificates(authority.bundle) if each != previous]
        files[CA_CERTIFICATE] = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in kept)
        replace_folder(directory / CA_FOLDER, files)
    elif all(_read_files(folder).get(CA_CERTIFICATE) == files[CA_CERTIFICATE] for folder in _leaf_folders(leaves)):
        return [f"{describe(authority.certificate)} is the CA of this mesh; no rotation was under way"]
    return [f"{describe(authority.certificate)} is the CA of this mesh"] + [
        f"{folder} no longer believes the old CA" for folder in _renew_bundles(leaves, files[CA_CERTIFICATE])
    ]


def _refuse_leaves_of(previous: x509.Certificate, leaves: Sequence[Path]) -> None:
    old = [str(folder) for folder in _leaf_folders(leaves) if is_issued_by(_read_leaf(folder), previous)]
    if old:
        raise CertsError(f"still of the old CA: {', '.join(old)}; issue them anew with `meshd certs rotate`")


def _refuse_leaves_without(new: x509.Certificate, leaves: Sequence[Path]) -> None:
    """Every leaf's own bundle must have the new CA before anybody is met with a leaf of it."""
    behind = [
        str(folder)
        for folder in _leaf_folders(leaves)
        if new not in x509.load_pem_x509_certificates((folder / CA_CERTIFICATE).read_bytes())
    ]
    if behind:
        raise CertsError(f"do not believe the next CA yet: {', '.join(behind)}; run the step `prepare` again")


def _renew_bundles(leaves: Sequence[Path], bundle: bytes) -> Iterator[Path]:
    """Gives each leaf's folder this bundle; key and certificate stay."""
    for folder in _leaf_folders(leaves):
        files = _read_files(folder)
        if files.get(CA_CERTIFICATE) != bundle:
            replace_folder(folder, files | {CA_CERTIFICATE: bundle})
        yield folder


def _leaf_folders(directories: Sequence[Path]) -> list[Path]:
    return [
        folder
        for directory in directories
        for folder in sorted(directory.iterdir())
        if not folder.name.startswith(".") and folder.name != CA_FOLDER and (folder / CERTIFICATE).exists()
    ]


def _leaf_of(folder: Path) -> Leaf:
    name = common_name(_read_leaf(folder))
    if kind_of(name) == Kind.SERVER:
        name = f"{Kind.SERVER}-{name.removesuffix(server_name(''))}"
    try:
        return Leaf.parse(name)
    except CertsError as error:
        raise CertsError(
            f"{folder} holds a certificate of {name!r}, which is none of ours: move it elsewhere"
        ) from error


def _read_leaf(folder: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate((folder / CERTIFICATE).read_bytes())
    except FileNotFoundError as error:
        raise CertsError(f"{folder} holds no {CERTIFICATE}: make it with `meshd certs issue`") from error
    except ValueError as error:
        raise CertsError(f"{folder / CERTIFICATE} is no PEM certificate: {error}") from error


def _other_names(certificate: x509.Certificate, leaf: Leaf) -> tuple[Iterable[str], Iterable[str]]:
    """DNS names and IPs besides the one that the leaf has anyway."""
    own = server_name(leaf.cluster)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), ()
    dns = [name for name in names.get_values_for_type(x509.DNSName) if name != own]
    return dns, [str(address) for address in names.get_values_for_type(x509.IPAddress)]


def _read_files(folder: Path) -> dict[str, bytes]:
    resolved = folder.resolve(strict=True)
    return {path.name: path.read_bytes() for path in resolved.iterdir()}
