"""What a session sends beside messages: settings, headers, resets, acknowledgements, pings, goodbyes.

h2 makes most of it, and hears what the reader says of these things. Pings and goodbyes are made here: h2 would take no
more calls after a goodbye, and a ping needs none of what it knows.
"""

import h2.errors
import h2.events

from etcdproxy.http2 import frames
from etcdproxy.http2.machine import make_machine
from etcdproxy.http2.status import Headers


class Control:
    """`due`: `take` may have something."""

    __slots__ = ("_machine", "_made", "due")

    def __init__(self) -> None:
        self._machine = make_machine()
        self._made = bytearray()  # frames of our own
        self.due = True  # the greeting

    @property
    def max_frame(self) -> int:
        """The longest frame that the reader takes."""
        return self._machine.max_outbound_frame_size

    @property
    def window(self) -> int:
        """How many bytes the reader takes of a new call."""
        return self._machine.remote_settings.initial_window_size

    def hear(self, frame: bytes) -> list[h2.events.Event]:
        """What a frame of the reader means. Raises h2's ProtocolError."""
        self.due = True
        return self._machine.receive_data(frame)

    def take(self) -> bytes:
        """The frames that are to be sent now."""
        self.due = False
        data = self._machine.data_to_send()
        if self._made:
            data += self._made
            self._made.clear()
        return data

    def send_headers(self, stream: int, headers: Headers, *, end_stream: bool = False) -> None:
        self.due = True
        self._machine.send_headers(stream, headers, end_stream=end_stream)

    def reset(self, stream: int, code: int) -> None:
        self.due = True
        self._machine.reset_stream(stream, code)

    def acknowledge(self, stream: int, size: int) -> None:
        """The reader may send so much more, on the connection, and on the stream if it is open."""
        self.due = True
        self._machine.acknowledge_received_data(size, stream)

    def ping(self) -> None:
        self.due = True
        self._made += frames.ping()

    def answer_ping(self, payload: bytes) -> None:
        self.due = True
        self._made += frames.ping_ack(payload)

    def say_goodbye(self, code: int = h2.errors.ErrorCodes.NO_ERROR, reason: bytes = b"") -> None:
        self.due = True
        self._made += frames.goaway(self._machine.highest_inbound_stream_id, code, reason)
