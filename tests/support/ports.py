"""Ports of loopback for the servers of tests, that stay theirs also while a server is stopped.

A port that the kernel chooses (bind to 0) lies where it also takes the near ends of outgoing connections from: between
the choice and the server's start, or while a server is stopped, any connection of the machine can get it. These lie
below that range (ip_local_port_range: 32768 by default), and each process has a block of its own.
"""

import os
import socket
from dataclasses import dataclass
from functools import cache

_FIRST, _BLOCKS, _SIZE = 16_384, 128, 128  # ports 16384 to 32767


@dataclass(slots=True)
class Block:
    """The ports that are this process' as long as it lives. `lock` has a name that only one process can hold."""

    number: int
    lock: socket.socket
    given: int = 0

    def take(self) -> int:
        """The port that was given out longest ago, or never, and is not in use."""
        for _ in range(_SIZE):
            port = _FIRST + self.number * _SIZE + self.given % _SIZE
            self.given += 1
            if _unused(port):
                return port
        raise OSError(f"all {_SIZE} ports of the block from {_FIRST + self.number * _SIZE} are in use")


def claim() -> Block:
    """A block that no other process of this network namespace holds. The kernel gives it back when the process ends."""
    start = os.getpid() % _BLOCKS
    for number in (*range(start, _BLOCKS), *range(start)):
        lock = socket.socket(socket.AF_UNIX)
        try:
            lock.bind(f"\0meshd-tests-ports-{number}")
        except OSError:
            lock.close()
            continue
        return Block(number, lock)
    raise OSError(f"all {_BLOCKS} blocks of ports are taken: do so many suites run here?")


def free_ports(count: int) -> list[int]:
    """Different ports on which nothing listens."""
    block = _block(os.getpid())  # a forked process has its own
    return [block.take() for _ in range(count)]


def free_port() -> int:
    return free_ports(1)[0]


@cache
def _block(_pid: int) -> Block:
    return claim()


def _unused(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
