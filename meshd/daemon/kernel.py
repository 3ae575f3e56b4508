"""The kernel as targets of the reconcilers: the pinned maps, the pods of this node with their interfaces, and the
node's own routes. Used in the worker thread only.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from ipaddress import ip_address
from typing import Protocol

from datapath.description import describe
from datapath.entries import RANK, Entry, IPAddress, endpoint_entry
from datapath.interface import Interface, InterfaceError, NoInterface
from datapath.layout import MAPS as LAYOUTS
from datapath.layout import AddrKey, Endpoint, Family, MapType
from datapath.maps import MapError, MapFull
from datapath.policing import POLICY_RANK
from datapath.policylayout import Iface
from datapath.servicelayout import Svc, Svc4Key, Svc6Key
from meshd.daemon.wantedroutes import EXPORTED, EXPORTS, ROUTES, prefix_of
from meshd.reconcile.delta import UNKNOWN
from meshd.reconcile.target import Item, TargetError, TargetFull
from routing.hostroute import HostRoute, parse_host_route
from routing.routes import RouteError
from wire.records import IPNetwork

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


class KernelRoutes(Protocol):
    """What routing.routes.HostRoutes does."""

    def dump(self) -> dict[IPNetwork, HostRoute]: ...
    def standing(self) -> dict[IPNetwork, HostRoute]: ...
    def upsert(self, routes: Iterable[HostRoute]) -> None: ...
    def delete(self, prefixes: Iterable[IPNetwork]) -> None: ...


class KernelExports(Protocol):
    """What routing.exports.Exports does."""

    def dump(self) -> Set[IPNetwork]: ...
    def upsert(self, prefixes: Iterable[IPNetwork]) -> None: ...
    def delete(self, prefixes: Iterable[IPNetwork]) -> None: ...


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


class PodTarget:
    """The pods of this node: finds the interface, attaches the programs, writes md_endpoint, and md_iface where some
    policy holds. Writes only differences.
    """

    def __init__(
        self,
        maps: PinnedMaps,
        *,
        find: Callable[[IPAddress], Interface | None],
        attach: Callable[[Interface], None],
        police: Callable[[Interface, bool], None],
        through_stack: bool = False,
    ) -> None:
        self._maps, self._find, self._attach = MapTarget(maps), find, attach
        self._police, self._through_stack = police, through_stack
        self.without: dict[bytes, str] = {}
        """Pods (packed address) that have no interface of their own, with the reason: the stack serves them, no policy
        does. Replaced, never changed: others read it from another thread.
        """
        self._held = self._maps.dump("md_endpoint")
        self._ifaces = self._maps.dump("md_iface")
        self.writes = 0

    def dump(self, map: str) -> dict[bytes, bytes]:
        """Which pods there are entries of. Whether these are right is seen when they are upserted."""
        return {_packed(key): UNKNOWN for key in self._held}

    def lost(self, ifindexes: Set[int]) -> list[bytes]:
        """The pods whose interface is none of these any more, and those that may have one now. From any thread."""
        held = self._held.copy()
        gone = [
            _packed(key) for key, value in held.items() if Endpoint.from_buffer_copy(value).ifindex not in ifindexes
        ]
        return [*gone, *self.without]

    def upsert(self, map: str, items: Mapping[bytes, bytes]) -> None:
        for packed, value in items.items():
            try:
                self._upsert(packed, value)
            except TargetFull as full:  # it names keys of another map than the pods'
                raise TargetError(full.map, full.operation, full.reason) from full

    def _upsert(self, packed: bytes, value: bytes) -> None:
        identity, policed = int.from_bytes(value[:4], sys.byteorder), value[4:] == b"\1"
        address = ip_address(packed)
        try:
            interface = self._find(address)
        except InterfaceError as error:
            raise TargetError("md_endpoint", "find", str(error)) from error
        except NoInterface as error:
            self._forget(packed)
            self.without = self.without | {packed: str(error)}
            return
        if interface is None:
            raise TargetError("md_endpoint", "find", f"the pod {address} has no interface of its own (yet)")
        self._have(packed)
        self._attach(interface)
        if policed:
            self._set_iface(interface.ifindex, identity)
            self._police(interface, True)
        entry = endpoint_entry(
            address,
            ifindex=interface.ifindex,
            mac=interface.mac,
            host_mac=interface.host_mac,
            identity=identity,
            policed=policed,
            through_stack=self._through_stack,
        )
        if self._held.get(entry.key) != entry.value:
            self._maps.upsert(entry.map, {entry.key: entry.value})
            self._held[entry.key] = entry.value
            self.writes += 1
        if not policed and self._iface_of(interface.ifindex) is not None:
            self._police(interface, False)
            self._set_iface(interface.ifindex, None)

    def delete(self, map: str, keys: Iterable[bytes]) -> None:
        for packed in keys:
            self._have(packed)
            self._forget(packed)

    def _have(self, packed: bytes) -> None:
        """The pod is none that has no interface."""
        if packed in self.without:
            self.without = {pod: reason for pod, reason in self.without.items() if pod != packed}

    def _forget(self, packed: bytes) -> None:
        key = _key(packed)
        self._maps.delete("md_endpoint", [key])
        gone = self._held.pop(key, None)
        ifindex = Endpoint.from_buffer_copy(gone).ifindex if gone else 0
        if not any(Endpoint.from_buffer_copy(value).ifindex == ifindex for value in self._held.values()):
            self._set_iface(ifindex, None)

    def _iface_of(self, ifindex: int) -> bytes | None:
        return self._ifaces.get(ifindex.to_bytes(4, sys.byteorder))

    def _set_iface(self, ifindex: int, identity: int | None) -> None:
        key = ifindex.to_bytes(4, sys.byteorder)
        value = bytes(Iface(identity)) if identity is not None else None
        if self._ifaces.get(key) == value:
            return
        if value is None:
            self._maps.delete("md_iface", [key])
            del self._ifaces[key]
        else:
            self._maps.upsert("md_iface", {key: value})
            self._ifaces[key] = value
        self.writes += 1


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


class PodShape:
    """Pods do not depend on each other."""

    def rank(self, map: str, key: bytes) -> int:
        return 0

    def needs(self, map: str, key: bytes, value: bytes) -> Iterable[Item]:
        return ()

    def is_brief(self, map: str) -> bool:
        return False  # netlink, and programs to attach

    def describe(self, map: str, key: bytes) -> str:
        return f"pod {ip_address(key)}"


def _packed(key: bytes) -> bytes:
    address = AddrKey.from_buffer_copy(key)
    return bytes(address.word)[: 4 if address.family == Family.V4 else 16]


def _key(packed: bytes) -> bytes:
    blank = bytes(6)
    return endpoint_entry(ip_address(packed), ifindex=1, mac=blank, host_mac=blank, identity=0).key


class RouteTarget:
    """The node's own routes, key and value are prefix and way as text; and what it exports to a routing daemon."""

    def __init__(self, routes: KernelRoutes, exports: KernelExports) -> None:
        self._routes, self._exports = routes, exports

    def dump(self, map: str) -> dict[bytes, bytes]:
        try:
            if map == EXPORTS:
                return {str(prefix).encode(): EXPORTED for prefix in self._exports.dump()}
            return {str(prefix).encode(): route.way.encode() for prefix, route in self._routes.dump().items()}
        except RouteError as error:
            raise TargetError(map, "dump", str(error)) from error

    def standing(self) -> dict[str, dict[bytes, bytes]]:
        """By map what is as it was written, and found first by what is routed."""
        try:
            routes = {str(prefix).encode(): route.way.encode() for prefix, route in self._routes.standing().items()}
        except RouteError as error:
            raise TargetError(ROUTES, "dump", str(error)) from error
        return {ROUTES: routes, EXPORTS: self.dump(EXPORTS)}

    def upsert(self, map: str, items: Mapping[bytes, bytes]) -> None:
        try:
            if map == EXPORTS:
                self._exports.upsert(prefix_of(key) for key in items)
            else:
                self._routes.upsert(parse_host_route(key.decode(), way.decode()) for key, way in items.items())
        except RouteError as error:
            raise TargetError(map, "upsert", str(error)) from error

    def delete(self, map: str, keys: Iterable[bytes]) -> None:
        try:
            (self._exports if map == EXPORTS else self._routes).delete(prefix_of(key) for key in keys)
        except RouteError as error:
            raise TargetError(map, "delete", str(error)) from error


class RouteShape:
    """Routes do not depend on each other."""

    def rank(self, map: str, key: bytes) -> int:
        return 0

    def needs(self, map: str, key: bytes, value: bytes) -> Iterable[Item]:
        return ()

    def is_brief(self, map: str) -> bool:
        return False  # netlink

    def describe(self, map: str, key: bytes) -> str:
        return f"{'export' if map == EXPORTS else 'route'} {key.decode()}"
