"""The node's own PodCIDRs for a routing daemon to announce: unreachable routes in a table that no rule leads to, so
nothing that is forwarded sees them. BIRD reads the table with `learn` (kind-clusters/bird/bird.conf). Only what carries
our protocol is ever read or removed. In the network namespace of the calling thread.
"""

import errno
from collections.abc import Iterable
from ipaddress import ip_network
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from routing.routes import FAMILIES, PROTOCOL, RouteError
from wire.records import IPNetwork

EXPORT_TABLE = 110
_UNREACHABLE = 7


class Exports:
    """The prefixes that stand there. Idempotent."""

    def dump(self) -> frozenset[IPNetwork]:
        """Ours, of both families. Raises RouteError."""
        with IPRoute() as ipr:
            return frozenset(_own(ipr))

    def upsert(self, prefixes: Iterable[IPNetwork]) -> None:
        """Raises RouteError at the first that the kernel refuses."""
        with IPRoute() as ipr:
            for prefix in prefixes:
                try:
                    ipr.route("replace", type=_UNREACHABLE, **_target(prefix))
                except NetlinkError as error:
                    raise RouteError(f"export of {prefix} in table {EXPORT_TABLE}: {error}") from error

    def delete(self, prefixes: Iterable[IPNetwork]) -> None:
        """Absent is success. Raises RouteError."""
        with IPRoute() as ipr:
            for prefix in prefixes:
                try:
                    ipr.route("del", type=_UNREACHABLE, **_target(prefix))
                except NetlinkError as error:
                    if error.code != errno.ESRCH:
                        raise RouteError(f"export of {prefix}: {error}") from error


def remove_exports() -> tuple[str, ...]:
    """All of ours go; what went, as text."""
    exports = Exports()
    found = sorted(exports.dump(), key=str)
    exports.delete(found)
    return tuple(f"export {prefix}" for prefix in found)


def _own(ipr: IPRoute) -> Iterable[IPNetwork]:
    for family in FAMILIES.values():
        for route in ipr.get_routes(family=family, table=EXPORT_TABLE):
            destination = route.get_attr("RTA_DST")
            if route["proto"] == PROTOCOL and destination:
                yield ip_network((destination, route["dst_len"]))


def _target(prefix: IPNetwork) -> dict[str, Any]:
    return {"dst": str(prefix), "family": FAMILIES[prefix.version], "table": EXPORT_TABLE, "proto": PROTOCOL}
