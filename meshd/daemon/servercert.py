"""The certificate that a cluster's server shows: which names it has, and until when. Looked at on a connection of its
own, as gRPC does not tell; that it is valid for the name we ask for is gRPC's business, and checked here again.
"""

import asyncio
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509

from meshd.daemon.remotefile import RemoteFile

TIMEOUT_S = 2.0
_ODD = (x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, x509.InvalidVersion)


class NoCertificate(Exception):
    """It could not be read; str(error) says why."""


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """`by_wildcard`: the name that we asked for is covered by a wildcard, as Cilium's certificates have it, so that
    any server of the mesh could show this certificate.
    """

    names: tuple[str, ...]
    not_after: datetime
    by_wildcard: bool

    def days_left(self) -> int:
        """Whole days, negative after the end."""
        return (self.not_after - datetime.now(UTC)).days


async def read_server_certificate(target: str, remote: RemoteFile) -> ServerCertificate:
    """`target` as gRPC has it. Raises NoCertificate."""
    der = await asyncio.to_thread(_read_der, target, remote)
    return describe_certificate(der, remote.server_name)


def _read_der(target: str, remote: RemoteFile) -> bytes:
    """Blocking: asyncio leaves a socket behind when it is cancelled in the middle of a handshake."""
    host, _, port = target.removeprefix("dns:///").removeprefix("ipv4:").removeprefix("ipv6:").rpartition(":")
    try:
        context = ssl.create_default_context(cafile=str(remote.ca_file))
        context.load_cert_chain(remote.cert_file, remote.key_file)
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=remote.server_name) as secured,
        ):
            return secured.getpeercert(binary_form=True) or b""
    except (OSError, ValueError) as error:
        raise NoCertificate(str(error)) from error


def describe_certificate(der: bytes, server_name: str) -> ServerCertificate:
    """What the certificate says. Raises NoCertificate."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        ends = certificate.not_valid_after_utc
    except (ValueError, *_ODD) as error:
        raise NoCertificate(str(error)) from error
    found = tuple(names.get_values_for_type(x509.DNSName))
    return ServerCertificate(found, ends, server_name not in found)
