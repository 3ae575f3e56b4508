"""The node's own routes to remote PodCIDRs, with a protocol and a metric of our own, in the main table: a rule would
cost every packet of the node the kernel's short way through its tables (docs/adr/0017). Only where the host has another
route for just that prefix does ours stand in a table of our own, with a rule that leads there after the host's own
rules and before its main table. Only what carries our protocol is ever read or removed. In the network namespace of the
calling thread.
"""

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from routing.hostroute import HostRoute
from routing.routesocket import RouteSocket
from routing.rtnetlink import FAMILIES, UNICAST, KernelRoute
from wire.records import IPNetwork

PROTOCOL = 109
METRIC = 32109
"""Tells our routes of the main table from others for the same prefix, which the kernel would replace otherwise."""
TABLE = 109
RULE_PRIORITY = 32109
_MAIN = 254


class RouteError(Exception):
    """The kernel refuses a route; the text says which, why and what to do."""


@contextmanager
def _named(what: str) -> Iterator[None]:
    """What the kernel refuses is a RouteError."""
    try:
        yield
    except (NetlinkError, OSError) as error:
        raise RouteError(f"{what}: {error}") from error


class HostRoutes:
    """The routes that are there, by prefix. Idempotent."""

    def __init__(self) -> None:
        self._has_settled = False

    def dump(self) -> dict[IPNetwork, HostRoute]:
        """Ours, of both families. Raises RouteError."""
        with _named("routes"), RouteSocket() as routes:
            own = [_decode(route) for version in FAMILIES for route in _own_routes(routes, version)]
        return {route.prefix: route for route in own}

    def standing(self) -> dict[IPNetwork, HostRoute]:
        """Those that are found first: in the main table, or in ours, with the rule, where the main table has somebody
        else's for the same prefix. Raises RouteError.
        """
        found: dict[IPNetwork, HostRoute] = {}
        with _named("routes"), IPRoute() as ipr, RouteSocket() as routes:
            for version, family in FAMILIES.items():
                held = _held(routes, version)
                led = bool(_own_rules(ipr, family))
                for route in _own_routes(routes, version):
                    decoded, aside = _decode(route), route.table == TABLE
                    if (decoded.prefix in held) is aside and (led or not aside):
                        found[decoded.prefix] = decoded
        return found

    def upsert(self, routes: Iterable[HostRoute]) -> None:
        """Raises RouteError of the first that the kernel refuses; all others stand."""
        wanted = list(routes)
        with _named("routes"), RouteSocket() as kernel:
            codes = kernel.replace([_encode(route, _MAIN) for route in wanted], priority=METRIC)
            refused = {route: code for route, code in zip(wanted, codes, strict=True) if code}
            moved = _settle(kernel, [route for route in wanted if route not in refused])
            if moved or not self._has_settled:  # who was here before may have left a rule
                _drop_idle_rules(kernel)
            self._has_settled = True
        for route, code in refused.items():
            why = f"route {route}: {os.strerror(code)}; is its device up and its next hop on-link?"
            raise RouteError(why)

    def delete(self, prefixes: Iterable[IPNetwork]) -> None:
        """Absent is success. Raises RouteError."""
        gone = list(prefixes)
        with _named("routes"), RouteSocket() as kernel:
            _delete(kernel, gone, _MAIN)
            _delete(kernel, gone, TABLE)
            _drop_idle_rules(kernel)


def remove_routes() -> tuple[str, ...]:
    """Every route and rule of ours goes; what went, as text. What others have in our table stays."""
    removed = []
    with IPRoute() as ipr, RouteSocket() as kernel:
        for version, family in FAMILIES.items():
            for route in _own_routes(kernel, version):
                _delete(kernel, [route.prefix], route.table)
                removed.append(f"route {route.prefix}")
            for rule in _own_rules(ipr, family):
                ipr.rule("del", **_rule(family))
                removed.append(f"rule {rule['priority']} IPv{version}")
    return tuple(removed)


def _own_routes(routes: RouteSocket, version: int) -> list[KernelRoute]:
    return [route for table in (TABLE, _MAIN) for route in routes.dump(version, table=table, protocol=PROTOCOL)]


def _held(routes: RouteSocket, version: int) -> set[IPNetwork]:
    """The prefixes that somebody else has a route for in the main table."""
    return {route.prefix for route in routes.dump(version, table=_MAIN) if route.protocol != PROTOCOL}


def _settle(kernel: RouteSocket, written: Sequence[HostRoute]) -> bool:
    """Those of the main table that stand behind somebody else's move to our own, all others are there only. There is no
    moment without a route: the new one stands before the old one goes. True if there were any in our own table.
    """
    held = _hidden(kernel, [route.prefix for route in written])
    aside = {route.prefix for version in FAMILIES for route in kernel.dump(version, table=TABLE, protocol=PROTOCOL)}
    behind = [route for route in written if route.prefix in held]
    for version in {route.prefix.version for route in behind}:
        _ensure_rule(version)
    for route, code in zip(behind, kernel.replace([_encode(route, TABLE) for route in behind]), strict=True):
        if code:
            raise RouteError(f"route {route} in table {TABLE}: {os.strerror(code)}")
    _delete(kernel, [route.prefix for route in behind], _MAIN)
    _delete(kernel, [route.prefix for route in written if route.prefix in aside - held], TABLE)
    return bool(aside)


def _hidden(asked: RouteSocket, prefixes: Sequence[IPNetwork]) -> set[IPNetwork]:
    """Those that somebody else has a route for too: it would go before ours in the main table."""
    found: set[IPNetwork] = set()
    by_address = {prefix.network_address: prefix for prefix in prefixes}
    unclear = {prefix for prefix in prefixes if by_address[prefix.network_address] != prefix}
    for address, route in asked.ways(list(by_address), match=True):
        prefix = by_address[address]
        if route is None:  # blackholed, prohibited: by the host, not by us
            found.add(prefix)
        elif route.bits <= prefix.prefixlen and route.table != TABLE:
            if route.bits == prefix.prefixlen and route.protocol != PROTOCOL:
                found.add(prefix)
        else:
            unclear.add(prefix)  # the answer hides what the main table has
    for version in {prefix.version for prefix in unclear}:
        found |= _held(asked, version) & unclear
    return found


def _delete(kernel: RouteSocket, prefixes: Sequence[IPNetwork], table: int) -> None:
    """Absent is success."""
    ours = [_placed(prefix, table) for prefix in prefixes]
    for prefix, code in zip(prefixes, kernel.delete(ours), strict=True):
        if code not in (0, errno.ESRCH):
            raise RouteError(f"route to {prefix}: {os.strerror(code)}")


def _own_rules(ipr: IPRoute, family: int) -> list[Mapping[str, int]]:
    found: list[Mapping[str, int]] = []
    for rule in ipr.get_rules(family=family):
        if rule.get_attr("FRA_PROTOCOL") == PROTOCOL and rule.get_attr("FRA_TABLE") == TABLE:
            found.append({"priority": int(rule.get_attr("FRA_PRIORITY") or 0)})
    return found


def _rule(family: int) -> dict[str, int]:
    return {"family": family, "table": TABLE, "priority": RULE_PRIORITY, "FRA_PROTOCOL": PROTOCOL}


def _ensure_rule(version: int) -> None:
    family = FAMILIES[version]
    with IPRoute() as ipr:
        if not _own_rules(ipr, family):
            ipr.rule("add", **_rule(family))


def _drop_idle_rules(kernel: RouteSocket) -> None:
    """A rule that leads to none of our routes costs every packet of the node, for nothing."""
    with IPRoute() as ipr:
        for version, family in FAMILIES.items():
            rules = _own_rules(ipr, family)
            if rules and not kernel.dump(version, table=TABLE, protocol=PROTOCOL):
                for _ in rules:
                    ipr.rule("del", **_rule(family))


def _placed(prefix: IPNetwork, table: int) -> KernelRoute:
    """A route of ours by where it stands."""
    destination = prefix.network_address.packed
    return KernelRoute(prefix.version, prefix.prefixlen, table, PROTOCOL, UNICAST, destination, b"", b"", 0, ())


def _encode(route: HostRoute, table: int) -> KernelRoute:
    return replace(
        _placed(route.prefix, table),
        gateway=route.gateway.packed if route.gateway else b"",
        source=route.source.packed if route.source else b"",
        mtu=route.mtu,
        devices=(route.ifindex,),
    )


def _decode(route: KernelRoute) -> HostRoute:
    return HostRoute(
        prefix=route.prefix,
        ifindex=route.devices[0] if route.devices else 0,
        gateway=ip_address(route.gateway) if route.gateway else None,
        source=ip_address(route.source) if route.source else None,
        mtu=route.mtu,
    )
