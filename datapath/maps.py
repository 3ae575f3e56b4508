"""Reading and writing pinned maps, many entries per system call. The daemon's only way to the maps; no bcc.

Not thread-safe: one worker thread applies one round at a time.
"""

import ctypes
import errno
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from datapath import bpf
from datapath.batch import Batch, dump_map
from datapath.known import known_bits
from datapath.knownmap import KnownMap
from datapath.layout import MAPS, Counter, DropReason, MapType
from datapath.tables import create_table, encode_descriptors, read_table

_TABLES = 256
_FULL = frozenset({errno.E2BIG, errno.ENOSPC})


class MapError(Exception):
    """The kernel refused `op` on `map` for another reason than space."""

    def __init__(self, map: str, op: str, code: int) -> None:
        super().__init__(f"{map}: {op} failed: {os.strerror(code)}")
        self.map = map
        self.op = op
        self.errno = code


class MapFull(Exception):
    """`map` has no room for `rejected`; everything else of the same upsert was written."""

    def __init__(self, map: str, rejected: tuple[bytes, ...]) -> None:
        super().__init__(f"{map}: full, {len(rejected)} entries rejected; raise its size")
        self.map = map
        self.rejected = rejected


class Maps:
    """The maps pinned in `folder`, opened when first used. Close it, or use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fds: dict[str, int] = {}
        self._known: KnownMap | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        if self._known:
            self._known.close()
            self._known = None

    def upsert(self, map: str, items: Mapping[bytes, bytes]) -> None:
        """Write `items` in their order. Raises MapFull after writing what fits, MapError at anything else.

        The values of md_maglev are whole tables.
        """
        self._mark(map, items)
        if MAPS[map].kind is MapType.HASH_OF_MAPS:
            self._upsert_tables(map, items)
        else:
            self._upsert(map, items)

    def _mark(self, map: str, items: Mapping[bytes, bytes]) -> None:
        """The programs ask md_known first: nothing is written of whose network it does not say "perhaps"."""
        bits = known_bits(map, items)
        if not bits:
            return
        try:
            self._known = self._known or KnownMap(self._fd("md_known"))
        except (OSError, ValueError) as error:
            raise MapError("md_known", "map", getattr(error, "errno", None) or errno.EINVAL) from error
        self._known.mark(bits)

    def _upsert_tables(self, map: str, items: Mapping[bytes, bytes]) -> None:
        """In portions, as each table is an open descriptor until it is in its place."""
        keys, rejected = list(items), list[bytes]()
        for start in range(0, len(keys), _TABLES):
            portion = keys[start : start + _TABLES]
            fds: list[int] = []
            try:
                for key in portion:
                    fds.append(create_table(items[key]))
                self._upsert(map, dict(zip(portion, encode_descriptors(fds), strict=True)))
            except MapFull as full:
                rejected += full.rejected
            except OSError as error:
                raise MapError(map, "upsert", error.errno or 0) from error
            finally:
                for fd in fds:
                    os.close(fd)
        if rejected:
            raise MapFull(map, tuple(rejected))

    def _upsert(self, map: str, items: Mapping[bytes, bytes]) -> None:
        keys = list(items)
        batch = Batch(map, self._fd(map), keys, list(items.values()))
        rejected: list[bytes] = []
        done = 0
        while done < len(keys):
            done, code = batch.update(done)
            if code in _FULL:
                rejected.append(keys[done])
                done += 1
            elif code:
                raise MapError(map, "upsert", code)
        if rejected:
            raise MapFull(map, tuple(rejected))

    def delete(self, map: str, keys: Iterable[bytes]) -> None:
        """Remove `keys` in their order; an absent one counts as removed. Raises MapError."""
        listed = list(keys)
        batch = Batch(map, self._fd(map), listed, None)
        done = 0
        while done < len(listed):
            done, code = batch.delete(done)
            if code == errno.ENOENT:
                done += 1
            elif code:
                raise MapError(map, "delete", code)

    def dump(self, map: str) -> dict[bytes, bytes]:
        """All entries. Raises MapError."""
        try:
            held = dump_map(map, self._fd(map))
            if MAPS[map].kind is MapType.HASH_OF_MAPS:
                return {key: read_table(number) for key, number in held.items()}
            return held
        except OSError as error:
            raise MapError(map, "dump", error.errno or 0) from error

    def drops(self) -> dict[DropReason, int]:
        """Packets (or refused connections) per reason since the programs' maps were made, all CPUs together."""
        fd = self._fd("md_drops")
        cpus = _possible_cpus()
        key = ctypes.create_string_buffer(4)
        value = (Counter * cpus)()
        attr = bpf.ElementAttr(map_fd=fd, key=bpf.address_of(key), value=ctypes.addressof(value))
        packets: dict[DropReason, int] = {}
        for reason in DropReason:
            key.raw = int(reason).to_bytes(4, sys.byteorder)
            bpf.call(bpf.MAP_LOOKUP_ELEM, attr)
            packets[reason] = sum(counter.packets for counter in value)
        return packets

    def _fd(self, map: str) -> int:
        fd = self._fds.get(map)
        if fd is None:
            try:
                fd = bpf.get_object(self._folder / map)
            except OSError as error:
                raise MapError(map, "open", error.errno or 0) from error
            self._fds[map] = fd
        return fd


def _possible_cpus() -> int:
    text = Path("/sys/devices/system/cpu/possible").read_text().strip()
    return int(text.split(",")[-1].split("-")[-1]) + 1
