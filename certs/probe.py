"""Connects to a proxy as one of its readers would, as far as TLS goes, and says why it is refused.

With TLS 1.3 a client has done its part before the server looks at its certificate: a refusal comes as an alert, or as
nothing but an end, on the first read. So the probe speaks the first words of HTTP/2 and waits for the answer.
"""

import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from certs.checks import Fault, Finding, Purpose, alternative_names, check_chain
from certs.files import Files, check_files, read_certificates
from certs.names import CertsError

_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # preface, empty SETTINGS

_ALERTS = {
    "alert unknown ca": "it does not believe the CA that issued our certificate",
    "alert certificate expired": "by its clock our certificate has ended",
    "alert bad certificate": "our certificate is not valid to it: not yet by its clock, or broken",
    "alert unsupported certificate": "our certificate is not for clients (extended key usage)",
    "alert certificate revoked": "our certificate was revoked",
    "alert certificate required": "it wants a certificate and got none",
    "alert decrypt error": "our certificate's signature is not one of a CA that it believes",
    "alert access denied": "our certificate is valid, but not welcome",
    "alert handshake failure": "no certificate, or no way of encrypting that both know",
    "alert protocol version": "no TLS version that both speak",
    "alert no application protocol": "it does not speak HTTP/2",
}
_WORDS = re.compile(r"\] (.*) \(_ssl")  # of an SSLError's text; its `reason` is None for the younger alerts
_TLS_ALERT = b"\x15"
_UNSAID = "it closed the connection without a reason"
_ASK_SERVER = (
    "if `meshd certs verify` of our files finds nothing: compare our CA with the proxy's --ca file "
    "(`meshd certs show`) and the two clocks; the proxy's log may say more"
)


@dataclass(slots=True)
class _Met:
    """What became of one connection."""

    server: x509.Certificate | None = None
    version: str = ""
    protocol: str | None = None
    failure: OSError | None = None  # None: it accepted us and speaks
    speaks_plainly: bool = False

    @property
    def unverified(self) -> str:
        return self.failure.verify_message if isinstance(self.failure, ssl.SSLCertVerificationError) else ""


@dataclass(frozen=True, slots=True)
class Probe:
    """What a probe found; `peer` says who answered, empty if nobody did."""

    peer: str
    findings: list[Finding]


def probe(host: str, port: int, files: Files, *, name: str, now: datetime, timeout_s: float = 5.0) -> Probe:
    """Connects with the certificate of `files`, expecting the server to answer to `name`. Raises CertsError."""
    address = f"{host}:{port}"
    own = check_files(files, now=now, purpose=Purpose.CLIENT)
    authorities = read_certificates(files.authorities, address)
    if isinstance(authorities, Finding) or any(one.fault in (Fault.UNREADABLE, Fault.KEY_MISMATCH) for one in own):
        return Probe("", own)
    met = _meet(host, port, files, name, timeout_s, verify=True)
    found: list[Finding] = []
    if met.unverified:
        message = met.unverified
        met = _meet(host, port, files, name, timeout_s, verify=False)
        chain = [met.server] if met.server else []
        found = check_chain(address, chain, authorities, purpose=Purpose.SERVER, name=name, now=now) if chain else []
        if all(one.is_warning for one in found):
            remedy = "look at the server's certificate: openssl s_client -connect HOST:PORT -showcerts"
            found.append(Finding(address, Fault.UNVERIFIED, f"its certificate is not accepted: {message}", remedy))
    elif met.server:
        checked = check_chain(address, [met.server], authorities, purpose=Purpose.SERVER, name=name, now=now)
        found = [one for one in checked if one.is_warning]
    found += _judge(address, met)
    peer = f"{', '.join(alternative_names(met.server)) or 'no name'} with {met.version}" if met.server else ""
    return Probe(peer, [*own, *found])


def _meet(host: str, port: int, files: Files, name: str, timeout_s: float, *, verify: bool) -> _Met:
    met = _Met()
    context = _context(files, verify=verify)
    try:
        with (
            socket.create_connection((host, port), timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=name) as secured,
        ):
            if der := secured.getpeercert(binary_form=True):
                met.server = x509.load_der_x509_certificate(der)
            met.version, met.protocol = secured.version() or "", secured.selected_alpn_protocol()
            if met.protocol == "h2":
                secured.sendall(_HELLO)
                if not secured.recv(1):
                    met.failure = ConnectionAbortedError("the connection was closed without a reason")
    except (ssl.SSLError, ConnectionError) as error:
        met.failure = error
        if not met.server and not met.unverified:
            met.speaks_plainly = _speaks_plainly(host, port, timeout_s)
    except OSError as error:
        met.failure = error
    return met


def _context(files: Files, *, verify: bool) -> ssl.SSLContext:
    """Raises CertsError if OpenSSL does not take the files."""
    try:
        context = ssl.create_default_context(cafile=str(files.authorities))
        context.load_cert_chain(files.certificate, files.key)
    except (OSError, ssl.SSLError) as error:
        raise CertsError(f"{files.certificate}, its key or {files.authorities} is not usable: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    context.hostname_checks_common_name = False  # as Go and gRPC
    if not verify:  # only to see whom we met; nothing is sent that a stranger may not know
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _judge(address: str, met: _Met) -> Iterator[Finding]:
    """What the server did with us."""
    match met.failure:
        case None:
            if met.protocol != "h2":
                text = "it does not speak HTTP/2 (no ALPN protocol h2): no etcd and no meshd proxy is there"
                yield Finding(address, Fault.NO_HTTP2, text, "check address and port")
        case TimeoutError() if met.server:
            text = "it took our certificate, or not, and then said nothing"
            yield Finding(address, Fault.REFUSED, text, "check that it is a meshd proxy and that it is not stopped")
        case _ if met.speaks_plainly:
            text = "it does not speak TLS: this may be etcd's own plain port"
            yield Finding(address, Fault.NO_TLS, text, "give the port on which the proxy listens")
        case ssl.SSLError() as error:
            yield Finding(address, Fault.REFUSED, f"it refuses us: {_meaning(error)}", _ASK_SERVER)
        case _ if met.server:
            yield Finding(address, Fault.REFUSED, f"it refuses us: {_UNSAID}", _ASK_SERVER)
        case error:
            remedy = "check address, port and firewalls, and that the proxy runs"
            yield Finding(address, Fault.UNREACHABLE, f"no connection: {error.strerror or error}", remedy)


def _meaning(error: ssl.SSLError) -> str:
    words = _WORDS.search(str(error))
    said = words[1] if words else ""
    return next((meaning for alert, meaning in _ALERTS.items() if alert in said), said) or _UNSAID


def _speaks_plainly(host: str, port: int, timeout_s: float) -> bool:
    """Whether something answers without TLS."""
    try:
        with socket.create_connection((host, port), timeout_s) as plain:
            plain.settimeout(timeout_s)
            plain.sendall(_HELLO)
            return plain.recv(1) not in (b"", _TLS_ALERT)  # a TLS server may complain in its own words
    except OSError:
        return False
