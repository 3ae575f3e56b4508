"""Protocols and ports as blocks that a longest-prefix match can look up. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132
PROTOCOLS = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}
PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()} | {ICMP: "ICMP", ICMPV6: "ICMPv6"}
LAST_PORT = 0xFFFF


class Block(NamedTuple):
    """`length` leading bits count: 0 everything, 8 all ports of `protocol`, 8 + n the ports with n equal bits.

    For ICMP the type stands where the port stands.
    """

    protocol: int = 0
    port: int = 0
    length: int = 0

    def covers(self, other: "Block") -> bool:
        if self.length > other.length:
            return False
        if self.length == 0:
            return True
        if self.protocol != other.protocol:
            return False
        shift = 24 - self.length
        return self.length == 8 or self.port >> shift == other.port >> shift

    def __str__(self) -> str:
        if self.length == 0:
            return "any"
        name = PROTOCOL_NAMES.get(self.protocol, str(self.protocol))
        if self.length == 8:
            return name
        last = self.port + (1 << (24 - self.length)) - 1
        return f"{name}:{self.port}" if last == self.port else f"{name}:{self.port}-{last}"


EVERYTHING = Block()


@dataclass(frozen=True, slots=True)
class PortRange:
    """Ports `first` to `last` of a protocol; or, with `name`, the ports that pods give that name."""

    protocol: int
    first: int = 0
    last: int = LAST_PORT
    name: str = ""

    def blocks(self) -> Iterator[Block]:
        """The fewest blocks that cover exactly this range (which has no name)."""
        at = self.first
        while at <= self.last:
            size = at & -at or LAST_PORT + 1
            while at + size - 1 > self.last:
                size >>= 1
            yield Block(self.protocol, at, 8 + 16 - (size.bit_length() - 1))
            at += size


def enclosing(block: Block) -> Iterator[Block]:
    """Every block that covers this one, itself included."""
    yield EVERYTHING
    for length in range(8, block.length + 1):
        bits = (LAST_PORT << (24 - length)) & LAST_PORT
        yield Block(block.protocol, block.port & bits, length)


def flatten(allow: Iterable[Block], deny: Iterable[Block]) -> dict[Block, bool]:
    """One table, block → allowed, in which the longest block that covers a port tells what all rules together say.

    Deny beats allow: an allowed block inside a denied one is left out; a denied one inside an allowed one is longer.
    """
    denied = set(deny)
    table = {block: True for block in set(allow) if denied.isdisjoint(enclosing(block))}
    return table | dict.fromkeys(denied, False)
