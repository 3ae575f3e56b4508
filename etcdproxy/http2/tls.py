"""TLS: what readers meet, in which words it is said why one was not let in, and how we come to etcd."""

import ssl
from typing import Any

from certs.pair import Pair

_ALPN = ["h2", "http/1.1"]
# OpenSSL's words → ours, which are few so that they can be counted.
_REASONS = {
    "unable to get local issuer certificate": "unknown CA",
    "unable to get issuer certificate": "unknown CA",
    "self-signed certificate in certificate chain": "unknown CA",
    "self-signed certificate": "unknown CA",
    "certificate has expired": "expired",
    "certificate is not yet valid": "not yet valid",
    "unsuitable certificate purpose": "wrong usage",
    "unsupported certificate purpose": "wrong usage",
    "certificate signature failure": "bad signature",
}
_CODES = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no certificate",
    "UNSUPPORTED_PROTOCOL": "old TLS",
    "NO_SHARED_CIPHER": "no shared cipher",
    "HTTP_REQUEST": "no TLS",
    "WRONG_VERSION_NUMBER": "no TLS",
}


def server_context(pair: Pair) -> ssl.SSLContext:
    """TLS 1.2 or later, mutual."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(_ALPN)
    # A session taken up again would not be asked for its certificate.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    pair.load_into(context)
    return context


def client_context(pair: Pair) -> ssl.SSLContext:
    """How we show ourselves to etcd, and whom we believe."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks certificate and name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(_ALPN[:1])
    pair.load_into(context)
    return context


def peer_name(certificate: dict[str, Any] | None) -> str:
    """The common name of a verified certificate; empty, which has no role, if there is not exactly one."""
    subject = (certificate or {}).get("subject", ())
    names = [str(value) for attributes in subject for kind, value in attributes if kind == "commonName"]
    return names[0] if len(names) == 1 else ""


def refusal(error: ssl.SSLError) -> str:
    """Why a handshake failed, in one of a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _REASONS.get(error.verify_message, "bad certificate")
    code = error.reason or ""
    if "ALERT" in code:  # the reader's own words: it does not want us
        return "refused by the reader"
    return _CODES.get(code, "broken TLS")
