"""The node's own PodCIDRs for a routing daemon to announce: unreachable routes in a table that no rule leads to, so
nothing that is forwarded sees them. BIRD reads the table with `learn` (kind-clusters/bird/bird.conf). Only what carries
our protocol is ever read or removed. In the network namespace of the calling thread.
"""

import errno
from collections.abc import Iterable
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from routing.routes import PROTOCOL, RouteError
from routing.routesocket import RouteSocket
from routing.rtnetlink import FAMILIES
from wire.records import IPNetwork

EXPORT_TABLE = 110
_UNREACHABLE = 7


class Exports:
    """The prefixes that stand there. Idempotent."""

    def dump(self) -> frozenset[IPNetwork]:
        """Ours, of both families. Raises RouteError."""
        try:
            return frozenset(_own())
        except OSError as error:
            raise RouteError(f"exports: {error}") from error

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


def _own() -> Iterable[IPNetwork]:
    with RouteSocket() as routes:
        for version in FAMILIES:
            for route in routes.dump(version, table=EXPORT_TABLE, protocol=PROTOCOL):
                if route.bits:
                    yield route.prefix


def _target(prefix: IPNetwork) -> dict[str, Any]:
    return {"dst": str(prefix), "family": FAMILIES[prefix.version], "table": EXPORT_TABLE, "proto": PROTOCOL}
