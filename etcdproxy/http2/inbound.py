"""What the reader says on one connection: its bytes in, what they mean out.

What is rare (settings, headers, data, resets, errors) is h2's. What is frequent is read here, and h2 hears nothing of
it: window updates and pings.
"""

from typing import Protocol

import h2.events
import h2.exceptions
import h2.settings
from h2.errors import ErrorCodes

from etcdproxy.http2 import frames
from etcdproxy.http2.control import Control
from etcdproxy.http2.frames import HEAD_BYTES
from etcdproxy.http2.intake import FrameTooLong, Intake
from etcdproxy.http2.machine import MAX_FRAME
from etcdproxy.http2.outbound import Overflow


class Violation(Exception):
    """What came is no HTTP/2; `code` is what is to be said about it, None: h2 has said it."""

    def __init__(self, reason: str, code: ErrorCodes | None = None) -> None:
        super().__init__(reason)
        self.code = code


class Listener(Protocol):
    """The session, as it is told what the reader says."""

    def open_call(self, stream: int, headers: dict[bytes, bytes]) -> None: ...

    def take_data(self, stream: int, data: bytes, size: int) -> None:
        """Data of a call; `size` is what they took of its window."""

    def complete_call(self, stream: int) -> None:
        """The reader sends nothing more on a call."""

    def give_up_call(self, stream: int) -> None:
        """The reader wants nothing more of a call."""

    def widen(self, stream: int, size: int) -> None:
        """The reader takes so much more, on the whole connection if the stream is 0. Raises Overflow."""

    def take_settings(self, widened: int) -> None:
        """The reader's settings have changed; it takes so much more on every call. Raises Overflow."""

    def stop_opening(self) -> None:
        """The reader wants no new calls; those that are open go on."""


class Inbound:
    """Reads for one session. What is to be answered at once, `control` answers."""

    __slots__ = ("_control", "_intake", "_listener")

    def __init__(self, control: Control, listener: Listener) -> None:
        self._control = control
        self._listener = listener
        self._intake = Intake(MAX_FRAME)

    def take(self, data: bytes) -> None:
        """Takes bytes as they come. Raises Violation, after which nothing may come."""
        try:
            for frame in self._intake.cut(data):
                if frame.within_headers or not self._take_frequent(*frame):
                    for event in self._control.hear(frame.data):
                        self._tell(event)
        except h2.exceptions.ProtocolError as error:
            raise Violation(str(error)) from error
        except FrameTooLong as error:
            raise Violation(str(error), ErrorCodes.FRAME_SIZE_ERROR) from error
        except Overflow as error:
            raise Violation("more window than there is", ErrorCodes.FLOW_CONTROL_ERROR) from error

    def _take_frequent(self, kind: int, flags: int, stream: int, data: bytes, _: bool) -> bool:
        """Handles a window update, a ping or a goaway; False for all else and for what h2 shall complain about."""
        length = len(data) - HEAD_BYTES
        if kind == frames.WINDOW_UPDATE and length == 4 and (size := frames.read_number(data, HEAD_BYTES)):
            self._listener.widen(stream, size)
            return True
        if kind == frames.PING and length == 8 and not stream:
            if not flags & frames.ACK:
                self._control.answer_ping(data[HEAD_BYTES:])
            return True
        if kind == frames.GOAWAY and length >= 8 and not stream:
            self._listener.stop_opening()
            return True
        return False

    def _tell(self, event: h2.events.Event) -> None:
        listener = self._listener
        if isinstance(event, h2.events.RequestReceived):
            listener.open_call(event.stream_id, dict(event.headers))
        elif isinstance(event, h2.events.DataReceived):
            listener.take_data(event.stream_id, event.data, event.flow_controlled_length)
        elif isinstance(event, h2.events.StreamEnded):
            listener.complete_call(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            listener.give_up_call(event.stream_id)
        elif isinstance(event, h2.events.RemoteSettingsChanged):
            window = event.changed_settings.get(h2.settings.SettingCodes.INITIAL_WINDOW_SIZE)
            listener.take_settings(window.new_value - (window.original_value or 0) if window else 0)
