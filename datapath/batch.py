"""Batch operations of bpf(2) over contiguous arrays, one by one where the kernel has no batch. Called by maps.py."""

import ctypes
import errno

from datapath import bpf
from datapath.layout import MAPS, MapType

# The kernel says ENOTSUPP (524) where a map type or an old kernel has no batch operation.
_NO_BATCH = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, 524})
_CHUNK = 4096


class Batch:
    """Keys (and values) as contiguous arrays; starts over where the kernel stopped."""

    def __init__(self, map: str, fd: int, keys: list[bytes], values: list[bytes] | None) -> None:
        spec = MAPS[map]
        self._fd = fd
        self._key_size = spec.key_size
        self._value_size = spec.value_size if values is not None else 0
        self._total = len(keys)
        self._keys = ctypes.create_string_buffer(b"".join(keys), max(1, self._total * self._key_size))
        self._values = ctypes.create_string_buffer(b"".join(values or ()), max(1, self._total * self._value_size))
        self._single = False

    def update(self, start: int) -> tuple[int, int]:
        """Write from `start` on. Returns where it stopped and the errno there (0 at the end)."""
        return self._run(bpf.MAP_UPDATE_BATCH, bpf.MAP_UPDATE_ELEM, start)

    def delete(self, start: int) -> tuple[int, int]:
        """Delete from `start` on. Returns where it stopped and the errno there (0 at the end)."""
        return self._run(bpf.MAP_DELETE_BATCH, bpf.MAP_DELETE_ELEM, start)

    def _run(self, many: int, one: int, start: int) -> tuple[int, int]:
        if not self._single:
            done, code = self._run_batch(many, start)
            if code not in _NO_BATCH:
                return done, code
            # Refused as a whole, or this element is invalid: one by one tells which.
            self._single = True
            start = done
        return self._run_single(one, start)

    def _run_batch(self, command: int, start: int) -> tuple[int, int]:
        attr = bpf.BatchAttr(
            keys=bpf.address_of(self._keys) + start * self._key_size,
            values=bpf.address_of(self._values) + start * self._value_size,
            count=self._total - start,
            map_fd=self._fd,
        )
        try:
            bpf.call(command, attr)
        except OSError as error:
            code = error.errno or 0
            # Where there is no such operation `count` is left as it was given.
            return (start if code in _NO_BATCH else start + attr.count), code
        return self._total, 0

    def _run_single(self, command: int, start: int) -> tuple[int, int]:
        attr = bpf.ElementAttr(map_fd=self._fd)
        for n in range(start, self._total):
            attr.key = bpf.address_of(self._keys) + n * self._key_size
            attr.value = bpf.address_of(self._values) + n * self._value_size if self._value_size else 0
            try:
                bpf.call(command, attr)
            except OSError as error:
                return n, error.errno or 0
        return self._total, 0


def dump_map(map: str, fd: int) -> dict[bytes, bytes]:
    """All entries of the map behind `fd`. Raises OSError."""
    spec = MAPS[map]
    if spec.kind in (MapType.ARRAY, MapType.PERCPU_ARRAY):
        return _dump_single(fd, spec.key_size, spec.value_size)
    try:
        return _dump_batch(fd, spec.key_size, spec.value_size)
    except OSError as error:
        if error.errno not in _NO_BATCH:
            raise
    return _dump_single(fd, spec.key_size, spec.value_size)


def _dump_batch(fd: int, key_size: int, value_size: int) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    # A hash writes 4 bytes of token, an LPM trie a whole key: bcc's own call gives it 4 and crashes.
    tokens = [ctypes.create_string_buffer(max(8, key_size)) for _ in range(2)]
    chunk = _CHUNK
    attr = bpf.BatchAttr(map_fd=fd, out_batch=bpf.address_of(tokens[0]))
    last = False
    while not last:
        keys = ctypes.create_string_buffer(chunk * key_size)
        values = ctypes.create_string_buffer(chunk * value_size)
        attr.keys, attr.values = bpf.address_of(keys), bpf.address_of(values)
        attr.count = chunk
        try:
            bpf.call(bpf.MAP_LOOKUP_BATCH, attr)
        except OSError as error:
            if error.errno == errno.ENOSPC:  # one bucket of the hash is longer than the chunk
                chunk *= 2
                continue
            if error.errno != errno.ENOENT:
                raise
            last = True
        _collect(found, attr.count, keys.raw, key_size, values.raw, value_size)
        tokens.reverse()
        attr.in_batch, attr.out_batch = bpf.address_of(tokens[1]), bpf.address_of(tokens[0])
    return found


def _collect(found: dict[bytes, bytes], count: int, keys: bytes, key_size: int, values: bytes, value_size: int) -> None:
    for n in range(count):
        key = keys[n * key_size : (n + 1) * key_size]
        found[key] = values[n * value_size : (n + 1) * value_size]


def _dump_single(fd: int, key_size: int, value_size: int) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    key = ctypes.create_string_buffer(key_size)
    following = ctypes.create_string_buffer(key_size)
    # A per-CPU map would write a value per CPU: `drops` reads that one.
    value = ctypes.create_string_buffer(value_size)
    attr = bpf.ElementAttr(map_fd=fd, value=bpf.address_of(following))
    lookup = bpf.ElementAttr(map_fd=fd, key=bpf.address_of(following), value=bpf.address_of(value))
    while True:
        try:
            bpf.call(bpf.MAP_GET_NEXT_KEY, attr)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return found
            raise
        bpf.call(bpf.MAP_LOOKUP_ELEM, lookup)
        found[following.raw] = value.raw
        key.raw = following.raw
        attr.key = bpf.address_of(key)
