"""The ports that servers of tests listen on: never another process', never one of an outgoing connection."""

import os
import socket
from pathlib import Path

from tests.support import ports


def test_ports_lie_below_those_of_outgoing_connections() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(port < lowest for port in ports.free_ports(3))


def test_a_port_comes_again_only_after_all_others_of_the_block() -> None:
    block = ports.claim()
    with block.lock:
        first = [block.take() for _ in range(100)]
        assert len(set(first)) == 100
        assert not set(first[:50]) & {block.take() for _ in range(20)}


def test_a_port_in_use_is_passed_over() -> None:
    block = ports.claim()
    with block.lock:
        expected = block.take() + 1
        with socket.create_server(("127.0.0.1", expected)):
            assert block.take() == expected + 1


def test_two_owners_share_no_port() -> None:
    one, other = ports.claim(), ports.claim()
    with one.lock, other.lock:
        assert one.number != other.number


def test_a_forked_process_has_a_block_of_its_own() -> None:
    mine = ports.free_port()
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, str(ports.free_port()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = int(os.read(reader, 16))
    os.close(reader)
    os.close(writer)
    assert theirs // 128 != mine // 128


def test_a_block_is_free_again_when_its_owner_ends() -> None:
    one = ports.claim()
    one.lock.close()
    again = ports.claim()
    with again.lock:
        assert again.number == one.number
