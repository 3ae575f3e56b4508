"""The TLS end: who may connect at all, and how gRPC treats connections."""

import grpc
import grpc.aio

from certs.pair import Pair
from etcdproxy.service import Service

_MAX_REQUEST_BYTES = 64 << 10  # a key and a range end, nothing that a reader asks is bigger
_OPTIONS = [
    ("grpc.max_receive_message_length", _MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),  # a second proxy at the same address must fail, not share
    # Readers ping every 15 s; gRPC's default would send them away for it.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A reader that vanished without a word is noticed, and its streams end.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
]


class ListenError(Exception):
    """The address cannot be listened on; str(error) names it."""


def make_server(service: Service, listen: str, pair: Pair) -> tuple[grpc.aio.Server, int]:
    """A server, not started yet, that wants a certificate of every client; and its port. Raises ListenError."""
    server = grpc.aio.server(handlers=[service], options=_OPTIONS)
    credentials = grpc.ssl_server_credentials(
        [(pair.key, pair.certificate)], root_certificates=pair.authorities, require_client_auth=True
    )
    try:
        return server, server.add_secure_port(listen, credentials)
    except RuntimeError as error:
        raise ListenError(f"cannot listen on {listen}: is the address free and one of this machine's?") from error
