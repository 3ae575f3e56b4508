"""A reader at the lowest level: h2's client on a TLS socket, so that a test decides what is sent and what is read."""

import socket
import ssl
from pathlib import Path

import h2.config
import h2.connection
import h2.events

from tests.support.http2 import HEADERS

_DEADLINE_S = 10.0


class RawReader:
    """Connects at once; nothing is read before `receive`. Close it."""

    def __init__(self, port: int, certificate: Path) -> None:
        context = ssl.create_default_context(cafile=str(certificate / "ca.crt"))
        context.check_hostname = False
        context.load_cert_chain(certificate / "tls.crt", certificate / "tls.key")
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection(("127.0.0.1", port), timeout=_DEADLINE_S)
        self.socket = context.wrap_socket(plain)
        self.machine = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.machine.initiate_connection()
        self.flush()

    def open(self) -> int:
        """Opens a Watch call, without a request."""
        stream = self.machine.get_next_available_stream_id()
        self.machine.send_headers(stream, HEADERS)
        self.flush()
        return stream

    def flush(self) -> None:
        self.socket.sendall(self.machine.data_to_send())

    def receive(self) -> list[h2.events.Event]:
        """What comes next; nothing if the other end has closed. Raises TimeoutError."""
        data = self.socket.recv(1 << 16)
        events = self.machine.receive_data(data) if data else []
        for event in events:
            if isinstance(event, h2.events.DataReceived):
                self.machine.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
        self.flush()
        return events

    def close(self) -> None:
        self.socket.close()
