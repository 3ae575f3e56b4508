"""Issues leaf certificates: ECDSA P-256, 90 days, valid from 24 h before they are issued."""

import ipaddress
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.authority import BACKDATING, CA_CERTIFICATE, Authority, encode_key, key_usage, subject
from certs.names import CertsError, Kind, Leaf, check_host_name, server_name
from certs.store import replace_folder

CERTIFICATE = "tls.crt"
KEY = "tls.key"
VALIDITY = timedelta(days=90)


def issue(
    authority: Authority,
    leaf: Leaf,
    directory: Path,
    *,
    now: datetime,
    names: Iterable[str] = (),
    addresses: Iterable[str] = (),
) -> Path:
    """Issues the leaf into `<directory>/<leaf.folder>/`, replacing what is there; returns that folder.

    `names` and `addresses` are DNS names and IPs the certificate answers to besides `<cluster>.mesh.cilium.io`
    of a server. The folder gets tls.crt, tls.key and ca.crt in one step. Raises CertsError or OSError.
    """
    folder = directory / leaf.folder
    _check_owner(folder, leaf)
    alternatives = _alternative_names(leaf, names, addresses)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _sign(authority, leaf, key, alternatives, now=now)
    files = {
        CERTIFICATE: certificate.public_bytes(serialization.Encoding.PEM),
        KEY: encode_key(key),
        CA_CERTIFICATE: authority.bundle,
    }
    replace_folder(folder, files)
    return folder


def _check_owner(folder: Path, leaf: Leaf) -> None:
    """Another cluster's server certificate has the same folder name: never replace it by mistake."""
    try:
        old = x509.load_pem_x509_certificate((folder / CERTIFICATE).read_bytes())
    except (OSError, ValueError):
        return
    owner = [str(name.value) for name in old.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if owner != [leaf.common_name]:
        whose = ", ".join(owner) or "nobody"
        raise CertsError(f"{folder} holds a certificate of {whose}, not {leaf.common_name}: choose another directory")


def _alternative_names(leaf: Leaf, names: Iterable[str], addresses: Iterable[str]) -> list[x509.GeneralName]:
    own = [server_name(leaf.cluster)] if leaf.kind is Kind.SERVER else []
    found: list[x509.GeneralName] = [x509.DNSName(check_host_name(name)) for name in [*own, *names]]
    for address in addresses:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(address)))
        except ValueError as error:
            raise CertsError(f"invalid IP address {address!r} for {leaf.common_name}: {error}") from error
    return list(dict.fromkeys(found))


def _sign(
    authority: Authority,
    leaf: Leaf,
    key: ec.EllipticCurvePrivateKey,
    alternatives: list[x509.GeneralName],
    *,
    now: datetime,
) -> x509.Certificate:
    issuer = authority.certificate
    if now >= issuer.not_valid_after_utc:
        raise CertsError(
            f"the CA ended on {issuer.not_valid_after_utc:%Y-%m-%d}: make a new one with `meshd certs init`"
        )
    usage = ExtendedKeyUsageOID.SERVER_AUTH if leaf.kind is Kind.SERVER else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject(leaf.common_name))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATING)
        .not_valid_after(min(now + VALIDITY, issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_key_id_of(authority), critical=False)
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(authority.key, hashes.SHA256())


def _key_id_of(authority: Authority) -> x509.AuthorityKeyIdentifier:
    try:
        own = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:  # of a CA that was made elsewhere
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
