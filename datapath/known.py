"""Which networks the mesh knows anything of: a bit for each /24 of IPv4, one for all /64 of IPv6 with the same hash.

The programs ask it first, so that what concerns nobody costs next to nothing. A bit says "perhaps": it is set before
the first entry in its network is written, and stays as long as the maps do. Pure; bpf/known.h is the other half.
"""

import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType
from typing import Any

from datapath.layout import KNOWN_BITS4, KNOWN_BITS6, AddrKey, CidrKey, Family, Node, NodeFlag, Peer, PeerFlag
from datapath.servicelayout import Be4, Be6, Svc4Key, Svc6Key

SIZE = (KNOWN_BITS4 + KNOWN_BITS6) // 8
"""Bytes of the whole."""
_HALVES = struct.Struct("=II").unpack_from
_MIX = 0x9E3779B1, 0x85EBCA6B

Bits = set[int]
_Entries = Iterable[tuple[bytes, bytes]]


def known_bits(map: str, entries: Mapping[bytes, bytes]) -> Bits:
    """The bits of these entries of a map; none where the map is not about networks."""
    return _READ[map](entries.items()) if map in _READ else set()


def known_bit(address: IPv4Address | IPv6Address) -> int:
    """The bit that the programs look at for an address."""
    return _bit4(address.packed) if address.version == 4 else _bit6(address.packed)


def _bit4(data: bytes, start: int = 0) -> int:
    return data[start] << 16 | data[start + 1] << 8 | data[start + 2]


def _bit6(data: bytes, start: int = 0) -> int:
    first, second = _HALVES(data, start)
    mixed: int = (first * _MIX[0] ^ second * _MIX[1]) & 0xFFFFFFFF
    return KNOWN_BITS4 + (mixed >> 16)


def _bit(network: bytes) -> int:
    """Of the first bytes of an address: three or eight."""
    return _bit4(network) if len(network) == 3 else _bit6(network)


def _low_byte(field: Any) -> int:
    """Where the byte of a number stands that holds its lowest bits."""
    last: int = field.size - 1
    return int(field.offset) + (0 if sys.byteorder == "little" else last)


def _remote(flags: Any, flag: int) -> Callable[[_Entries], Bits]:
    """Of entries by address, those whose flags say so: very many, of few networks."""
    family, start, at, flag = AddrKey.family.offset, AddrKey.word.offset, _low_byte(flags), int(flag)
    end4, end6, four = start + 3, start + 8, int(Family.V4)

    def bits(entries: _Entries) -> Bits:
        networks = {key[start : end4 if key[family] == four else end6] for key, value in entries if value[at] & flag}
        return set(map(_bit, networks))

    return bits


def _prefixes(entries: _Entries) -> Bits:
    ranges: set[range] = set()  # all wide prefixes of IPv6 have the same one
    for key, value in entries:
        if Peer.from_buffer_copy(value).flags & PeerFlag.REMOTE:
            prefix = CidrKey.from_buffer_copy(key)
            ranges.add(_within(prefix.family, prefix.prefixlen - 32, bytes(prefix.word)))
    return set().union(*ranges)


def _within(family: int, length: int, word: bytes) -> range:
    """The bits of a prefix. A wide one has many; those of IPv6 are everywhere."""
    if family == Family.V6 and length < 64:
        return range(KNOWN_BITS4, KNOWN_BITS4 + KNOWN_BITS6)
    first = _bit4(word) if family == Family.V4 else _bit6(word)
    return range(first, first + (1 << max(0, 24 - length)))


def _frontends(layout: Any, bit: Callable[[bytes, int], int]) -> Callable[[_Entries], Bits]:
    address, start = layout.address.offset, layout.slot.offset
    end, first = start + layout.slot.size, bytes(layout.slot.size)
    return lambda entries: {bit(key, address) for key, _ in entries if key[start:end] == first}


def _backends(layout: Any, bit: Callable[[bytes, int], int]) -> Callable[[_Entries], Bits]:
    address = layout.address.offset
    return lambda entries: {bit(value, address) for _, value in entries}


_READ: Mapping[str, Callable[[_Entries], Bits]] = MappingProxyType(
    {
        "md_ipcache": _remote(Peer.flags, PeerFlag.REMOTE),
        "md_node": _remote(Node.flags, NodeFlag.REMOTE),
        "md_cidrs": _prefixes,
        "md_svc4": _frontends(Svc4Key, _bit4),
        "md_svc6": _frontends(Svc6Key, _bit6),
        "md_be4": _backends(Be4, _bit4),
        "md_be6": _backends(Be6, _bit6),
    }
)
