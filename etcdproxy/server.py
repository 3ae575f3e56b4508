"""The TLS end: who may connect at all, and how gRPC treats connections."""

from typing import Any

import grpc
import grpc.aio

from certs.pair import Pair
from certs.reload import LivePair
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


def make_server(service: Service, listen: str, live: LivePair) -> tuple[grpc.aio.Server, int]:
    """A server, not started yet, that wants a certificate of every client; and its port. Raises ListenError.

    Every new connection is met with the files as they are then.
    """
    used = live.pair

    def fetch() -> Any:
        """What gRPC asks at each handshake; None: nothing new. Runs in a thread of gRPC's."""
        nonlocal used
        live.refresh()
        if live.pair == used:
            return None
        used = live.pair
        return _configuration(used)

    server = grpc.aio.server(handlers=[service], options=_OPTIONS)
    credentials = grpc.dynamic_ssl_server_credentials(_configuration(used), fetch, require_client_authentication=True)
    try:
        return server, server.add_secure_port(listen, credentials)
    except RuntimeError as error:
        raise ListenError(f"cannot listen on {listen}: is the address free and one of this machine's?") from error


def _configuration(pair: Pair) -> Any:
    return grpc.ssl_server_certificate_configuration([(pair.key, pair.certificate)], root_certificates=pair.authorities)
