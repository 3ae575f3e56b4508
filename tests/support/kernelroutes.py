"""Strict fakes of the kernel's routes: they refuse what the kernel would refuse, and count writes."""

from collections.abc import Callable, Iterable

from routing.hostroute import HostRoute
from routing.routes import RouteError
from wire.records import IPNetwork


class FakeRoutes:
    """Behaves as routing.routes.HostRoutes. `fails` says for which prefix an error comes instead."""

    def __init__(self) -> None:
        self.content: dict[IPNetwork, HostRoute] = {}
        self.writes = 0
        self.fails: Callable[[IPNetwork], bool] = lambda prefix: False

    def dump(self) -> dict[IPNetwork, HostRoute]:
        return dict(self.content)

    def standing(self) -> dict[IPNetwork, HostRoute]:
        return self.dump()

    def upsert(self, routes: Iterable[HostRoute]) -> None:
        for route in routes:
            if self.fails(route.prefix):
                raise RouteError(f"route {route}: EIO")
            assert route.ifindex > 0, route
            for address in (route.gateway, route.source):
                assert address is None or address.version == route.prefix.version, route
            self.content[route.prefix] = route
            self.writes += 1

    def delete(self, prefixes: Iterable[IPNetwork]) -> None:
        for prefix in prefixes:
            if self.fails(prefix):
                raise RouteError(f"route to {prefix}: EIO")
            if self.content.pop(prefix, None):
                self.writes += 1


class FakeExports:
    """Behaves as routing.exports.Exports."""

    def __init__(self) -> None:
        self.content: set[IPNetwork] = set()
        self.writes = 0

    def dump(self) -> frozenset[IPNetwork]:
        return frozenset(self.content)

    def upsert(self, prefixes: Iterable[IPNetwork]) -> None:
        wanted = set(prefixes)
        self.writes += len(wanted - self.content)
        self.content |= wanted

    def delete(self, prefixes: Iterable[IPNetwork]) -> None:
        gone = self.content.intersection(prefixes)
        self.writes += len(gone)
        self.content -= gone
