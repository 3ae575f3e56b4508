"""Maglev tables: consistent hashing over backends (Eisenbud et al., NSDI 2016, § 3.4). Pure.

Every backend has its own order of the table's entries, made from its text alone; in turns, and as often as its weight
says, each takes the next entry of its order that is free. So every node makes the same table, and a change of one
backend moves few entries of the others.
"""

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache

SIZES = (251, 509, 1021, 2039, 4093, 8191, 16381)
"""Primes: the sizes that a table may have."""
DEFAULT_SIZE = 251
ENTRY_BYTES = 4
_TAIL = 16
_TAIL_MOST = 1 << 16


def build_table(names: Sequence[str], weights: Sequence[int] = (), *, size: int = DEFAULT_SIZE) -> list[int]:
    """The index in `names` for each entry. Weights are positive; none: all the same. Raises ValueError."""
    count = len(names)
    if not 0 < count <= size:
        raise ValueError(f"a table of {size} entries takes 1 to {size} backends, not {count}")
    order = sorted(range(count), key=names.__getitem__)
    starts, strides = zip(*(_permutation(names[index], size) for index in order), strict=True)
    turns = _turns([weights[index] for index in order] if weights else [1] * count)
    table = [-1] * size
    positions = list(starts)
    # Walking is short while many are free; for the last ones it is cheaper to sort them as each backend comes by them.
    tail = min(size // _TAIL, _TAIL_MOST // count)
    for _ in range(size - tail):
        turn = next(turns)
        position, stride = positions[turn], strides[turn]
        while table[position] >= 0:
            position = (position + stride) % size
        table[position] = order[turn]
        positions[turn] = position
    ways = _ways([entry for entry in range(size) if table[entry] < 0], positions, strides, size)
    for _ in range(tail):
        turn = next(turns)
        table[next(entry for entry in ways[turn] if table[entry] < 0)] = order[turn]
    return table


def _turns(shares: Sequence[int]) -> Iterator[int]:
    """Whose turn it is, for ever: each as often as its share of the largest says."""
    if len(set(shares)) == 1:
        while True:
            yield from range(len(shares))
    largest = max(shares)
    credit = [largest - share for share in shares]
    while True:
        for turn, share in enumerate(shares):
            credit[turn] += share
            if credit[turn] >= largest:
                credit[turn] -= largest
                yield turn


def _ways(free: Sequence[int], positions: Sequence[int], strides: Sequence[int], size: int) -> list[Iterator[int]]:
    """For each backend, from where it is, the free entries in its order."""
    import numpy as np  # takes 17 MB, which most nodes never need

    entries = np.asarray(free, dtype=np.int64)
    inverse = np.asarray([pow(stride, -1, size) for stride in strides], dtype=np.int64)
    steps = (entries[None, :] - np.asarray(positions)[:, None]) * inverse[:, None] % size
    sorted_entries = entries[steps.astype(np.int16).argsort(axis=1, kind="stable")]
    return [iter(row) for row in sorted_entries.tolist()]


def encode_table(table: Sequence[int], numbers: Sequence[int]) -> bytes:
    """The table with the backends' numbers, as the map holds it."""
    return array("I", [numbers[entry] for entry in table]).tobytes()


@lru_cache(1 << 16)
def _permutation(name: str, size: int) -> tuple[int, int]:
    """Start and stride of a backend's order."""
    digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big") % size, int.from_bytes(digest[8:], "big") % (size - 1) + 1
