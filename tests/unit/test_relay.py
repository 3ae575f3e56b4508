"""The relay itself, as what is tested through it stands on it."""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from tests.support.relay import Relay


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(5)
        yield made


@pytest.fixture
def relay(listener: socket.socket) -> Iterator[Relay]:
    made = Relay(f"127.0.0.1:{listener.getsockname()[1]}")
    try:
        yield made
    finally:
        made.close()


def connect(relay: Relay) -> socket.socket:
    host, _, port = relay.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=5)


def hears(end: socket.socket, wait_s: float = 5.0) -> bytes | None:
    """What arrives, None if nothing does in time."""
    end.settimeout(wait_s)
    try:
        return end.recv(100)
    except TimeoutError:
        return None


def test_bytes_stall_and_go_on_in_either_direction(relay: Relay, listener: socket.socket) -> None:
    with connect(relay) as near, listener.accept()[0] as far:
        near.sendall(b"1")
        assert hears(far) == b"1"
        relay.stall(there=False)
        near.sendall(b"2")
        far.sendall(b"3")
        assert hears(far) == b"2"
        assert hears(near, 0.1) is None
        relay.resume()
        assert hears(near) == b"3"


def test_a_cut_ends_both_sides_and_refuses(relay: Relay, listener: socket.socket) -> None:
    with connect(relay) as near, listener.accept()[0] as far:
        near.sendall(b"1")
        assert hears(far) == b"1"
        relay.cut()
        for end in (near, far):
            with contextlib.suppress(ConnectionResetError):
                assert hears(end) == b""
    with connect(relay) as refused, contextlib.suppress(ConnectionResetError):
        assert hears(refused) == b""
    relay.resume()
    with connect(relay), listener.accept()[0]:
        assert relay.accepted == 3


def test_a_cut_after_some_bytes(relay: Relay, listener: socket.socket) -> None:
    with connect(relay) as near, listener.accept()[0] as far:
        relay.cut_after(3)
        far.sendall(b"12")
        assert hears(near) == b"12"
        assert not relay.is_cut
        far.sendall(b"3")
        assert hears(near) == b"3"
        with contextlib.suppress(ConnectionResetError):
            assert hears(near) == b""
        assert relay.is_cut
    relay.resume()
    with connect(relay) as near, listener.accept()[0] as far:
        far.sendall(b"1234")
        assert hears(near) == b"1234"


def test_what_stalled_never_arrives_after_a_renewal(relay: Relay, listener: socket.socket) -> None:
    with connect(relay) as near, listener.accept()[0] as far:
        relay.stall()
        near.sendall(b"1")
        relay.renew()
        with contextlib.suppress(ConnectionResetError):
            assert hears(far) == b""
