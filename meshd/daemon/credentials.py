"""A client certificate as gRPC wants it, read from its files anew for every connection, so that a rotation is picked
up; and when it ends.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import grpc
from cryptography import x509

from meshd.daemon.remotefile import RemoteFile


class BadCredentials(Exception):
    """A file of the certificate is missing or none; str(error) names it."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """`not_after` is when the client certificate ends."""

    channel: grpc.ChannelCredentials
    not_after: datetime


def read_credentials(remote: RemoteFile) -> Credentials:
    """Raises BadCredentials."""
    ca, cert, key = (_read(path) for path in (remote.ca_file, remote.cert_file, remote.key_file))
    try:
        x509.load_pem_x509_certificates(ca)
        leaf = x509.load_pem_x509_certificates(cert)[0]
    except ValueError as error:
        raise BadCredentials(f"{remote.cert_file} or {remote.ca_file} is not a PEM certificate: {error}") from error
    return Credentials(grpc.ssl_channel_credentials(ca, key, cert), leaf.not_valid_after_utc)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadCredentials(f"{path} cannot be read: {error.strerror}") from error
