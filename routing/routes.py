"""The node's own routes to remote PodCIDRs, with a protocol and a metric of our own, in the main table: a rule would
cost every packet of the node the kernel's short way through its tables (docs/adr/0017). Only where the host has another
route for just that prefix does ours stand in a table of our own, with a rule that leads there after the host's own
rules and before its main table. Only what carries our protocol is ever read or removed. In the network namespace of the
calling thread.
"""

import errno
from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from routing.hostroute import HostRoute
from wire.records import IPNetwork

PROTOCOL = 109
METRIC = 32109
"""Tells our routes of the main table from others for the same prefix, which the kernel would replace otherwise."""
TABLE = 109
RULE_PRIORITY = 32109
FAMILIES = {4: 2, 6: 10}
_MAIN = 254
_FIB_MATCH = 0x2000 | 0x1000  # RTM_F_FIB_MATCH, RTM_F_LOOKUP_TABLE: tell the route itself, and its table
_SCOPE_UNIVERSE, _SCOPE_LINK, _SCOPE_ANY = 0, 253, 255


class RouteError(Exception):
    """The kernel refuses a route; the text says which, why and what to do."""


class HostRoutes:
    """The routes that are there, by prefix. Idempotent."""

    def dump(self) -> dict[IPNetwork, HostRoute]:
        """Ours, of both families. Raises RouteError."""
        found: dict[IPNetwork, HostRoute] = {}
        with IPRoute() as ipr:
            for version, family in FAMILIES.items():
                for route in _own_routes(ipr, family):
                    decoded = _decode(route, version)
                    found[decoded.prefix] = decoded
        return found

    def standing(self) -> dict[IPNetwork, HostRoute]:
        """Those that are found first: in the main table, or in ours, with the rule, where the main table has somebody
        else's for the same prefix. Raises RouteError.
        """
        found: dict[IPNetwork, HostRoute] = {}
        with IPRoute() as ipr:
            for version, family in FAMILIES.items():
                held = {
                    _decode(route, version).prefix
                    for route in ipr.get_routes(family=family, table=_MAIN)
                    if route["proto"] != PROTOCOL
                }
                led = bool(_own_rules(ipr, family))
                for route in _own_routes(ipr, family):
                    decoded, aside = _decode(route, version), _table(route) == TABLE
                    if (decoded.prefix in held) is aside and (led or not aside):
                        found[decoded.prefix] = decoded
        return found

    def upsert(self, routes: Iterable[HostRoute]) -> None:
        """Raises RouteError at the first that the kernel refuses."""
        with IPRoute() as ipr:
            for route in routes:
                try:
                    _replace(ipr, route)
                except NetlinkError as error:
                    raise RouteError(f"route {route}: {error}; is its device up and its next hop on-link?") from error
            _drop_idle_rules(ipr)

    def delete(self, prefixes: Iterable[IPNetwork]) -> None:
        """Absent is success. Raises RouteError."""
        with IPRoute() as ipr:
            for prefix in prefixes:
                try:
                    for table in (_MAIN, TABLE):
                        _delete(ipr, prefix, table)
                except NetlinkError as error:
                    raise RouteError(f"route to {prefix}: {error}") from error
            _drop_idle_rules(ipr)


def remove_routes() -> tuple[str, ...]:
    """Every route and rule of ours goes; what went, as text. What others have in our table stays."""
    removed = []
    with IPRoute() as ipr:
        for version, family in FAMILIES.items():
            for route in list(_own_routes(ipr, family)):
                prefix = _decode(route, version).prefix
                _delete(ipr, prefix, _table(route))
                removed.append(f"route {prefix}")
            for rule in _own_rules(ipr, family):
                ipr.rule("del", **_rule(family))
                removed.append(f"rule {rule['priority']} IPv{version}")
    return tuple(removed)


def _own_routes(ipr: IPRoute, family: int) -> Iterable[Any]:
    return [
        route
        for table in (TABLE, _MAIN)
        for route in ipr.get_routes(family=family, table=table)
        if route["proto"] == PROTOCOL
    ]


def _replace(ipr: IPRoute, route: HostRoute) -> None:
    """There is no moment without a route: the new one stands before the old one goes."""
    ipr.route("replace", **_attributes(route, _MAIN))
    if not _is_held(ipr, route.prefix):
        _delete(ipr, route.prefix, TABLE)
        return
    _ensure_rule(ipr, route.prefix.version)
    ipr.route("replace", **_attributes(route, TABLE))
    _delete(ipr, route.prefix, _MAIN)


def _is_held(ipr: IPRoute, prefix: IPNetwork) -> bool:
    """Has somebody else a route for just that prefix? It would go before ours in the main table."""
    family = FAMILIES[prefix.version]
    try:
        (found, *_) = ipr.route("get", family=family, dst=str(prefix.network_address), flags=_FIB_MATCH)
    except NetlinkError:  # blackholed, prohibited: by the host, not by us
        return True
    if found["dst_len"] <= prefix.prefixlen and _table(found) != TABLE:
        return bool(found["dst_len"] == prefix.prefixlen and found["proto"] != PROTOCOL)
    return any(  # the answer hides what the main table has
        route["proto"] != PROTOCOL and _decode(route, prefix.version).prefix == prefix
        for route in ipr.get_routes(family=family, table=_MAIN)
    )


def _delete(ipr: IPRoute, prefix: IPNetwork, table: int) -> None:
    """Absent is success."""
    try:
        ipr.route("del", **_target(prefix, table))
    except NetlinkError as error:
        if error.code != errno.ESRCH:
            raise


def _table(route: Any) -> int:
    return int(route.get_attr("RTA_TABLE") or route["table"])


def _own_rules(ipr: IPRoute, family: int) -> list[Mapping[str, int]]:
    found: list[Mapping[str, int]] = []
    for rule in ipr.get_rules(family=family):
        if rule.get_attr("FRA_PROTOCOL") == PROTOCOL and rule.get_attr("FRA_TABLE") == TABLE:
            found.append({"priority": int(rule.get_attr("FRA_PRIORITY") or 0)})
    return found


def _target(prefix: IPNetwork, table: int) -> dict[str, Any]:
    """What names a route of ours for removal, whatever its scope."""
    family = FAMILIES[prefix.version]
    return {"dst": str(prefix), "family": family, "table": table, "proto": PROTOCOL, "scope": _SCOPE_ANY}


def _rule(family: int) -> dict[str, int]:
    return {"family": family, "table": TABLE, "priority": RULE_PRIORITY, "FRA_PROTOCOL": PROTOCOL}


def _ensure_rule(ipr: IPRoute, version: int) -> None:
    family = FAMILIES[version]
    if not _own_rules(ipr, family):
        ipr.rule("add", **_rule(family))


def _drop_idle_rules(ipr: IPRoute) -> None:
    """A rule that leads to none of our routes costs every packet of the node, for nothing."""
    for family in FAMILIES.values():
        rules = _own_rules(ipr, family)
        if rules and not any(r["proto"] == PROTOCOL for r in ipr.get_routes(family=family, table=TABLE)):
            for _ in rules:
                ipr.rule("del", **_rule(family))


def _attributes(route: HostRoute, table: int) -> dict[str, Any]:
    words: dict[str, Any] = {
        "dst": str(route.prefix),
        "family": FAMILIES[route.prefix.version],
        "oif": route.ifindex,
        "table": table,
        "proto": PROTOCOL,
        "scope": _SCOPE_UNIVERSE if route.gateway or route.prefix.version == 6 else _SCOPE_LINK,
    }
    if table == _MAIN:
        words["priority"] = METRIC
    if route.gateway is not None:
        words["gateway"] = str(route.gateway)
    if route.source is not None:
        words["prefsrc"] = str(route.source)
    if route.mtu:
        words["metrics"] = {"mtu": route.mtu}
    return words


def _decode(route: Any, version: int) -> HostRoute:
    default = "0.0.0.0" if version == 4 else "::"  # noqa: S104 — a destination, nothing listens
    metrics = route.get_attr("RTA_METRICS")
    gateway, source = route.get_attr("RTA_GATEWAY"), route.get_attr("RTA_PREFSRC")
    return HostRoute(
        prefix=ip_network((route.get_attr("RTA_DST") or default, route["dst_len"])),
        ifindex=int(route.get_attr("RTA_OIF") or 0),
        gateway=ip_address(gateway) if gateway else None,
        source=ip_address(source) if source else None,
        mtu=int((metrics.get_attr("RTAX_MTU") if metrics else 0) or 0),
    )
