"""The pinned maps as a target of the reconcilers, and the order in which their entries are written. Used in the worker
thread only. Pods are podtarget.py, routes routetarget.py.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from datapath.description import describe
from datapath.entries import RANK, Entry
from datapath.layout import MAPS as LAYOUTS
from datapath.layout import MapType
from datapath.maps import MapError, MapFull
from datapath.policing import POLICY_RANK
from datapath.servicelayout import Svc, Svc4Key, Svc6Key
from meshd.reconcile.target import Item, TargetError, TargetFull

_SERVICE_MAPS = ("md_numbers", "md_be4", "md_be6", "md_affm", "md_maglev", "md_svc4", "md_svc6")
MAPS = ("md_cfg", "md_node", "md_cidrs", "md_ipcache", *_SERVICE_MAPS)
"""The maps that the daemon reconciles; md_endpoint is written by the pods' target."""
BACKEND_MAPS = ("md_be4", "md_be6")
_SERVICES = {"md_svc4": (Svc4Key, "md_be4"), "md_svc6": (Svc6Key, "md_be6")}


class PinnedMaps(Protocol):
    """What datapath.maps.Maps does."""

    def dump(self, map: str) -> dict[bytes, bytes]: ...
    def upsert(self, map: str, items: Mapping[bytes, bytes]) -> None: ...
    def delete(self, map: str, keys: Iterable[bytes]) -> None: ...


class MapTarget:
    """The pinned maps, with their errors as the reconciler knows them."""

    def __init__(self, maps: PinnedMaps) -> None:
        self._maps = maps

    def dump(self, map: str) -> dict[bytes, bytes]:
        try:
            return self._maps.dump(map)
        except MapError as error:
            raise TargetError(map, "dump", str(error)) from error

    def upsert(self, map: str, items: Mapping[bytes, bytes]) -> None:
        try:
            self._maps.upsert(map, items)
        except MapFull as error:
            raise TargetFull(map, error.rejected) from error
        except MapError as error:
            raise TargetError(map, "upsert", str(error)) from error

    def delete(self, map: str, keys: Iterable[bytes]) -> None:
        try:
            self._maps.delete(map, keys)
        except MapError as error:
            raise TargetError(map, "delete", str(error)) from error


class MapShape:
    """Backends before slots before the frontend that makes them visible."""

    def rank(self, map: str, key: bytes) -> int:
        return 2 * RANK[map] + (map in _SERVICES and _slot(map, key) == 0)

    def needs(self, map: str, key: bytes, value: bytes) -> Iterator[Item]:
        if map not in _SERVICES:
            return
        layout, backends = _SERVICES[map]
        service = Svc.from_buffer_copy(value)
        if _slot(map, key):
            yield backends, service.backend.to_bytes(4, sys.byteorder)
            return
        slot = layout.from_buffer_copy(key)
        for slot.slot in range(1, service.count + 1):
            yield map, bytes(slot)

    def is_brief(self, map: str) -> bool:
        return LAYOUTS[map].kind is not MapType.HASH_OF_MAPS  # the kernel waits until no program uses the old table

    def describe(self, map: str, key: bytes) -> str:
        return describe_entry(map, key, bytes(LAYOUTS[map].value_size))


def _slot(map: str, key: bytes) -> int:
    return int(_SERVICES[map][0].from_buffer_copy(key).slot)


def describe_entry(map: str, key: bytes, value: bytes) -> str:
    """One line for people."""
    return describe(Entry(map, key, value))


class PolicyShape:
    """Entries before the subject that puts them into force; who is outside comes last. Removal goes the other way."""

    def rank(self, map: str, key: bytes) -> int:
        return POLICY_RANK[map]

    def needs(self, map: str, key: bytes, value: bytes) -> Iterable[Item]:
        return ()

    def is_brief(self, map: str) -> bool:
        return True

    def describe(self, map: str, key: bytes) -> str:
        return describe_entry(map, key, bytes(LAYOUTS[map].value_size))
