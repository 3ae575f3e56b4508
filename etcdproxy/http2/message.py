"""One gRPC message that many readers are told. Pure."""

from etcdproxy.http2.frames import PREFIX_BYTES, SAFE_FRAME, data_frames, message_prefix


class Message:
    """`data` is the message, `size` what it takes of a window.

    It is put into frames once for all streams of the same number: a program that opens one stream gives it the same
    number everywhere.
    """

    __slots__ = ("_frames", "_stream", "data", "size")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = PREFIX_BYTES + len(data)
        self._frames = b""
        self._stream = 0

    def frames(self, stream: int) -> bytes:
        """DATA frames with the whole message."""
        if stream != self._stream:
            whole = [message_prefix(len(self.data)), self.data]
            self._frames = b"".join(data_frames(whole, self.size, stream, SAFE_FRAME))
            self._stream = stream
        return self._frames
