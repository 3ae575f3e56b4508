"""The node's own routes as a target of the reconcilers, and what it exports to a routing daemon. Used in the worker
thread only.
"""

from collections.abc import Iterable, Mapping, Set
from typing import Protocol

from meshd.daemon.wantedroutes import EXPORTED, EXPORTS, ROUTES, prefix_of
from meshd.reconcile.target import Item, TargetError
from routing.hostroute import HostRoute, parse_host_route
from routing.routes import RouteError
from wire.records import IPNetwork


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
