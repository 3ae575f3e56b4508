"""Maglev tables: consistent hashing over backends (Eisenbud et al., NSDI 2016, § 3.4). Pure.

Every backend has its own order of the table's entries, made from its text alone; in turns, and as often as its weight
says, each takes the next entry of its order that is free. So every node makes the same table, and a change of one
backend moves few entries of the others.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

SIZES = (251, 509, 1021, 2039, 4093, 8191, 16381)
"""Primes: the sizes that a table may have."""
DEFAULT_SIZE = 251
ENTRY_BYTES = 4
_PROBES = 64


def build_table(names: Sequence[str], weights: Sequence[int] = (), *, size: int = DEFAULT_SIZE) -> list[int]:
    """The index in `names` for each entry. Weights are positive; none: all the same. Raises ValueError."""
    count = len(names)
    if not 0 < count <= size:
        raise ValueError(f"a table of {size} entries takes 1 to {size} backends, not {count}")
    order = sorted(range(count), key=names.__getitem__)
    starts, strides = zip(*(_permutation(names[index], size) for index in order), strict=True)
    largest = max(weights, default=1)
    shares = [weights[index] for index in order] if weights else [1] * count
    table = [-1] * size
    positions = list(starts)
    credit = [largest - share for share in shares]
    free = size
    while free:
        for turn in range(count):
            credit[turn] += shares[turn]
            if credit[turn] < largest:
                continue
            credit[turn] -= largest
            position, stride = positions[turn], strides[turn]
            for _ in range(_PROBES):
                if table[position] < 0:
                    break
                position = (position + stride) % size
            else:
                position = _next_free(table, position, stride, size)
            table[position] = order[turn]
            positions[turn] = position
            free -= 1
            if not free:
                break
    return table


def encode_table(table: Sequence[int], numbers: Sequence[int]) -> bytes:
    """The table with the backends' numbers, as the map holds it."""
    return bytes(np.asarray(numbers, dtype=np.uint32)[np.asarray(table)])


def _next_free(table: list[int], position: int, stride: int, size: int) -> int:
    """The free entry that comes first in the order, found without walking over those that are taken."""
    free = np.flatnonzero(np.asarray(table) < 0)
    steps = (free - position) * pow(stride, -1, size) % size
    return int(free[steps.argmin()])


@lru_cache(1 << 16)
def _permutation(name: str, size: int) -> tuple[int, int]:
    """Start and stride of a backend's order."""
    digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big") % size, int.from_bytes(digest[8:], "big") % (size - 1) + 1
