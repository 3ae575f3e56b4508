"""Says what is wrong with a certificate, as the other end of a TLS connection would find it. Pure.

The rules are OpenSSL's: a chain up to a self-signed CA of the bundle, validity of each link, extended key usage, and
the alternative names (never the common name).
"""

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_MAX_CHAIN = 8
LEAF_SOON = timedelta(days=14)
CA_SOON = timedelta(days=100)  # leaves of 90 days made from now on would end with their CA


class Purpose(StrEnum):
    """Which end of a connection a certificate is for."""

    SERVER = "server"
    CLIENT = "client"


class Fault(StrEnum):
    """What can be wrong. `expires-soon` is a warning, all others stop connections."""

    UNREADABLE = "unreadable"
    UNKNOWN_CA = "unknown-ca"
    NOT_A_CA = "not-a-ca"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    WRONG_USAGE = "wrong-usage"
    MISSING_NAME = "missing-name"
    KEY_MISMATCH = "key-mismatch"
    EXPIRES_SOON = "expires-soon"
    UNREACHABLE = "unreachable"
    NO_TLS = "no-tls"
    NO_HTTP2 = "no-http2"
    UNVERIFIED = "unverified"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with `subject` (a file or an address), and what to do."""

    subject: str
    fault: Fault
    text: str
    remedy: str

    @property
    def is_warning(self) -> bool:
        return self.fault is Fault.EXPIRES_SOON


def check_chain(
    subject: str,
    chain: Sequence[x509.Certificate],
    authorities: Sequence[x509.Certificate],
    *,
    purpose: Purpose,
    name: str,
    now: datetime,
) -> list[Finding]:
    """What stops an end that believes `authorities` from accepting `chain` (the leaf first).

    `name` is the DNS name or IP that a server must answer to; empty: any, but it must have one.
    """
    leaf = chain[0]
    path = _path(chain, authorities)
    found = [_unknown_ca(subject, path[-1], authorities)] if not _is_anchor(path[-1], authorities) else []
    found += check_validity(subject, leaf, now=now, soon=LEAF_SOON)
    found += check_use(subject, leaf, purpose=purpose, name=name)
    for issuer in path[1:]:
        found += check_ca(subject, issuer, now=now)
    return found


def check_use(subject: str, leaf: x509.Certificate, *, purpose: Purpose, name: str) -> Iterator[Finding]:
    """What stops a leaf from being used as that, whoever issued it; `name` as for `check_chain`."""
    yield from _check_usage(subject, leaf, purpose)
    if purpose is Purpose.SERVER:
        yield from _check_name(subject, leaf, name)


def check_ca(subject: str, certificate: x509.Certificate, *, now: datetime) -> Iterator[Finding]:
    """What stops a certificate from vouching for others."""
    if not _may_sign(certificate):
        yield Finding(
            subject,
            Fault.NOT_A_CA,
            f"{describe(certificate)} may not sign certificates (no CA:TRUE, or no keyCertSign)",
            "put the certificate of the CA itself into ca.crt, not a leaf; `meshd certs init` makes a proper one",
        )
    yield from check_validity(subject, certificate, now=now, soon=CA_SOON, remedy="rotate the CA: `meshd certs rotate`")


def check_validity(
    subject: str,
    certificate: x509.Certificate,
    *,
    now: datetime,
    soon: timedelta,
    remedy: str = "issue it anew: `meshd certs rotate`",
) -> Iterator[Finding]:
    """Whether `now` is within the certificate's time, and not near its end."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > ends:
        text = f"{describe(certificate)} ended on {ends:%Y-%m-%d %H:%M} UTC, {_age(now - ends)} ago"
        yield Finding(subject, Fault.EXPIRED, text, remedy)
    elif now < begins:
        text = f"{describe(certificate)} begins on {begins:%Y-%m-%d %H:%M} UTC, in {_age(begins - now)}"
        remedy = "compare this machine's clock with that of the machine that issued it; issue it anew if it is wrong"
        yield Finding(subject, Fault.NOT_YET_VALID, text, remedy)
    elif ends - now < soon:
        text = f"{describe(certificate)} ends on {ends:%Y-%m-%d %H:%M} UTC, in {_age(ends - now)}"
        yield Finding(subject, Fault.EXPIRES_SOON, text, remedy)


def describe(certificate: x509.Certificate) -> str:
    """A certificate in words that tell it from others with its name."""
    return f"{common_name(certificate) or 'a certificate without a name'} ({fingerprint(certificate)})"


def common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def fingerprint(certificate: x509.Certificate) -> str:
    """The first 8 hex digits of the public key's identifier (SHA-1, as in the certificate's extensions)."""
    return x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest.hex()[:8]


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the issuer's key signed the certificate; says nothing of whether it was allowed to."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


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


def usages(certificate: x509.Certificate) -> tuple[Purpose, ...]:
    """What the extended key usage allows; both if the certificate does not say."""
    try:
        listed = set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return (Purpose.SERVER, Purpose.CLIENT)
    oids = {Purpose.SERVER: ExtendedKeyUsageOID.SERVER_AUTH, Purpose.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH}
    return tuple(purpose for purpose, oid in oids.items() if oid in listed)


def _path(chain: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """The leaf and who vouches for whom, as far as it is known."""
    path = [chain[0]]
    while len(path) < _MAX_CHAIN and not _is_anchor(path[-1], authorities):
        issuer = next((other for other in (*authorities, *chain[1:]) if is_issued_by(path[-1], other)), None)
        if issuer is None or issuer in path:
            break
        path.append(issuer)
    return path


def _is_anchor(certificate: x509.Certificate, authorities: Sequence[x509.Certificate]) -> bool:
    return certificate in authorities and is_issued_by(certificate, certificate)


def _unknown_ca(subject: str, last: x509.Certificate, authorities: Sequence[x509.Certificate]) -> Finding:
    believed = ", ".join(describe(authority) for authority in authorities) or "no CA at all"
    issuer = last.issuer.rfc4514_string()
    if last.issuer == last.subject:
        text = f"{describe(last)} is signed by itself, and is not one of the CAs that are believed: {believed}"
    elif any(authority.subject == last.issuer for authority in authorities):
        text = f"{describe(last)} comes from another CA of the name {issuer} than those that are believed: {believed}"
    else:
        text = f"{describe(last)} comes from {issuer}; believed are {believed}"
    remedy = "add the issuing CA's certificate to ca.crt of the end that checks, or issue the leaf from a CA in it"
    return Finding(subject, Fault.UNKNOWN_CA, text, remedy)


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        if not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
    except x509.ExtensionNotFound:
        return False
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        return True


def _check_usage(subject: str, leaf: x509.Certificate, purpose: Purpose) -> Iterator[Finding]:
    allowed = usages(leaf)
    if purpose not in allowed:
        text = f"{describe(leaf)} may not be used as a {purpose}, only as {' and '.join(allowed) or 'something else'}"
        kind = "server-CLUSTER" if purpose is Purpose.SERVER else "remote-, local-, daemon- or admin-CLUSTER"
        yield Finding(subject, Fault.WRONG_USAGE, text, f"issue the right kind of leaf: `meshd certs issue {kind}`")


def _check_name(subject: str, leaf: x509.Certificate, name: str) -> Iterator[Finding]:
    names = alternative_names(leaf)
    if any(_answers_to(pattern, name) for pattern in names) or (names and not name):
        return
    answers = (
        f"answers to {', '.join(names)}" if names else "has no alternative name (SAN); a common name does not count"
    )
    text = f"{describe(leaf)} {answers}" + (f"; {name} is expected" if name else "")
    remedy = "issue it with that name: `meshd certs issue server-CLUSTER --name NAME` (or --ip)"
    yield Finding(subject, Fault.MISSING_NAME, text, remedy)


def _answers_to(pattern: str, name: str) -> bool:
    try:
        return ipaddress.ip_address(pattern) == ipaddress.ip_address(name)
    except ValueError:
        pass
    pattern, name = pattern.lower(), name.lower()
    if pattern.startswith("*."):
        first, dot, rest = name.partition(".")
        return bool(first and dot) and rest == pattern[2:]
    return pattern == name


def _age(span: timedelta) -> str:
    days, hours = span.days, span.seconds // 3600
    if days:
        return f"{days} day{'s' if days > 1 else ''}"
    return f"{hours} h" if hours else f"{span.seconds // 60} min"
