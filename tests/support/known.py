"""What md_known holds once these entries are written."""

from collections.abc import Iterable

from datapath.entries import Entry
from datapath.known import known_bits


def marked(entries: Iterable[Entry]) -> dict[bytes, bytes]:
    """The elements of md_known in which a bit is set."""
    held: dict[bytes, bytearray] = {}
    for entry in entries:
        for bit in known_bits(entry.map, {entry.key: entry.value}):
            element = held.setdefault((bit // 64).to_bytes(4, "little"), bytearray(8))
            element[bit // 8 % 8] |= 1 << bit % 8
    return {key: bytes(element) for key, element in held.items()}
