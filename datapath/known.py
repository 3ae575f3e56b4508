"""Which networks the mesh knows anything of: a bit for each /24 of IPv4, one for all /64 of IPv6 with the same hash.

The programs ask it first, so that what concerns nobody costs next to nothing. A bit says "perhaps": it is set before
the first entry in its network is written, and stays as long as the maps do. Pure; bpf/known.h is the other half.
"""

from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datapath.layout import KNOWN_BITS4, KNOWN_BITS6, AddrKey, CidrKey, Family, Node, NodeFlag, Peer, PeerFlag
from datapath.servicelayout import Be4, Be6, Svc4Key, Svc6Key

SIZE = (KNOWN_BITS4 + KNOWN_BITS6) // 8
"""Bytes of the whole."""
_MIX = np.array([0x9E3779B1, 0x85EBCA6B], np.uint32)

Rows = NDArray[Any]


def known_bits(map: str, keys: Iterable[bytes], values: Iterable[bytes]) -> Rows:
    """The bits of these entries of a map, each once; none where the map is not about networks."""
    if map not in _READ:
        return np.empty(0, np.uint32)
    return np.unique(_READ[map](b"".join(keys), b"".join(values)))


def known_bit(address: IPv4Address | IPv6Address) -> int:
    """The bit that the programs look at for an address."""
    word = np.frombuffer(address.packed.ljust(16, b"\0"), np.uint8).reshape(1, 16)
    return int((_bits4(word) if address.version == 4 else _bits6(word))[0])


def _bits4(words: Rows) -> Rows:
    return words[:, 0].astype(np.uint32) << 16 | words[:, 1].astype(np.uint32) << 8 | words[:, 2]


def _bits6(words: Rows) -> Rows:
    halves = np.ascontiguousarray(words[:, :8]).view(np.uint32) * _MIX
    return KNOWN_BITS4 + ((halves[:, 0] ^ halves[:, 1]) >> 16)


def _bits_of(families: Rows, words: Rows) -> Rows:
    four = families == Family.V4
    return np.concatenate([_bits4(words[four]), _bits6(words[~four])])


def _rows(data: bytes, layout: type) -> Rows:
    return np.frombuffer(data, np.dtype(layout))


def _remote(keys: bytes, values: bytes, layout: type, flag: int) -> Rows:
    rows = _rows(keys, AddrKey)[_rows(values, layout)["flags"] & flag != 0]
    return _bits_of(rows["family"], rows["word"])


def _prefixes(keys: bytes, values: bytes) -> Rows:
    rows = _rows(keys, CidrKey)[_rows(values, Peer)["flags"] & PeerFlag.REMOTE != 0]
    lengths, four = rows["prefixlen"] - 32, rows["family"] == Family.V4
    whole = np.where(four, lengths >= 24, lengths >= 64)
    wide = [_wide(int(row["family"]), int(row["prefixlen"]) - 32, row["word"]) for row in rows[~whole]]
    return np.concatenate([_bits_of(rows["family"][whole], rows["word"][whole]), *wide])


def _wide(family: int, length: int, word: Rows) -> Rows:
    """A prefix of many networks. Those of IPv6 are everywhere."""
    if family == Family.V6:
        return np.arange(KNOWN_BITS4, KNOWN_BITS4 + KNOWN_BITS6, dtype=np.uint32)
    first = int(_bits4(word.reshape(1, 16))[0])
    return np.arange(first, first + (1 << (24 - length)), dtype=np.uint32)


def _frontends(keys: bytes, values: bytes, layout: type, bits: Callable[[Rows], Rows]) -> Rows:
    rows = _rows(keys, layout)
    return bits(rows["address"][rows["slot"] == 0])


_READ: Mapping[str, Callable[[bytes, bytes], Rows]] = MappingProxyType(
    {
        "md_ipcache": lambda keys, values: _remote(keys, values, Peer, PeerFlag.REMOTE),
        "md_node": lambda keys, values: _remote(keys, values, Node, NodeFlag.REMOTE),
        "md_cidrs": _prefixes,
        "md_svc4": lambda keys, values: _frontends(keys, values, Svc4Key, _bits4),
        "md_svc6": lambda keys, values: _frontends(keys, values, Svc6Key, _bits6),
        "md_be4": lambda keys, values: _bits4(_rows(values, Be4)["address"]),
        "md_be6": lambda keys, values: _bits6(_rows(values, Be6)["address"]),
    }
)
