"""h2, set up as this server wants it: what a reader may open and send. Pure."""

import h2.config
import h2.connection
import h2.settings

MAX_FRAME = 16 << 10
_MAX_STREAMS = 1_000  # open calls of one connection
_MAX_HEADER_BYTES = 16 << 10
_WINDOW = 128 << 10  # what a call may send before it is acknowledged
_CONNECTION_WINDOW = 1 << 20
_DEFAULT_WINDOW = 65_535
_Code = h2.settings.SettingCodes
_SETTINGS = {
    _Code.MAX_CONCURRENT_STREAMS: _MAX_STREAMS,
    _Code.INITIAL_WINDOW_SIZE: _WINDOW,
    _Code.MAX_HEADER_LIST_SIZE: _MAX_HEADER_BYTES,
    _Code.MAX_FRAME_SIZE: MAX_FRAME,
}
_CONFIG = h2.config.H2Configuration(
    client_side=False,
    header_encoding=False,
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)


class _Machine(h2.connection.H2Connection):
    MAX_CLOSED_STREAMS = 1_000  # of which it remembers how they ended


def make_machine() -> h2.connection.H2Connection:
    """The server's side of one connection, whose greeting waits to be sent."""
    machine = _Machine(_CONFIG)
    machine.local_settings = h2.settings.Settings(client=False, initial_values=_SETTINGS)
    machine.decoder.max_header_list_size = _MAX_HEADER_BYTES
    machine.initiate_connection()
    machine.increment_flow_control_window(_CONNECTION_WINDOW - _DEFAULT_WINDOW)
    return machine
