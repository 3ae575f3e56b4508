"""From global services to their entries: frontends, slots, backends. Pure.

After a restart the maps hold backends of clusters that have not been heard yet. They are `retained`: kept behind
their frontends until their cluster has synced, so that no service loses a backend because a source is late.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from datapath.entries import MAX_SLOTS, IPAddress, service_entries
from globalsvc.merge import GlobalService
from identity.claims import Claims
from meshd.daemon.backends import PROTOCOLS, BackendIds, Endpoint, is_usable, usable
from meshd.daemon.wishes import Wishes, entries_as_wishes

FrontendKey = tuple[IPAddress, int, int]
"""Address, port, IPPROTO_*."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What the maps held at the start: frontends with their backends, and the backends' numbers."""

    frontends: Mapping[FrontendKey, tuple[Endpoint, ...]]
    numbers: Mapping[int, Endpoint]


class Services:
    """Incremental: `update` costs the services that changed. `merge` says what a service is now."""

    def __init__(self, merge: Callable[[str], GlobalService | None]) -> None:
        self._merge = merge
        self._ids = BackendIds()
        self._claims: Claims[FrontendKey, tuple[Endpoint, ...]] = Claims(lambda name: ())
        self._frontends: dict[str, tuple[FrontendKey, ...]] = {}
        self._published: dict[FrontendKey, tuple[Endpoint, ...]] = {}
        self._retained: dict[FrontendKey, tuple[Endpoint, ...]] = {}
        self._order: dict[FrontendKey, tuple[Endpoint, ...]] = {}

    def __len__(self) -> int:
        return len(self._frontends)

    @property
    def retained(self) -> int:
        """Backends that are kept although no cluster that was heard offers them."""
        return sum(map(len, self._retained.values()))

    def restore(self, restored: Restored) -> None:
        self._ids.restore(restored.numbers)
        self._retained = dict(restored.frontends)
        self._order = dict(restored.frontends)

    def retain(self, may_stay: Callable[[Endpoint], bool]) -> Wishes:
        """From now on only those of the retained backends stay that `may_stay`."""
        wishes: Wishes = {}
        for key, endpoints in list(self._retained.items()):
            kept = tuple(endpoint for endpoint in endpoints if may_stay(endpoint))
            if kept == endpoints:
                continue
            if kept:
                self._retained[key] = kept
            else:
                del self._retained[key]
            if key in self._published:
                wishes |= self._publish(key)
        return wishes

    def forget_restored(self) -> None:
        """All sources were heard and what was left over is pruned."""
        self._retained.clear()
        self._order.clear()
        self._ids.forget_restored()

    def update(self, names: Iterable[str]) -> Wishes:
        wishes: Wishes = {}
        for name in names:
            before = self._frontends.pop(name, ())
            after = _frontends(self._merge(name))
            if after:
                self._frontends[name] = tuple(after)
            for key in dict.fromkeys((*before, *after)):
                if key in after:
                    self._claims.put(key, name, after[key])
                else:
                    self._claims.drop(key, name)
                wishes |= self._publish(key)
        return wishes

    def _publish(self, key: FrontendKey) -> Wishes:
        """The entries of one frontend as they are now, and those it had that are too many."""
        before = self._published.pop(key, ())
        winner = self._claims.winner(key)
        wishes: Wishes = {}
        after: tuple[Endpoint, ...] = ()
        if winner is not None:
            after = self._in_order(key, dict.fromkeys((*winner[1], *self._retained.get(key, ()))))[:MAX_SLOTS]
            self._published[key] = after
            for endpoint in after:
                _, entry = self._ids.acquire(endpoint)
                if entry:
                    wishes[entry.map, entry.key] = entry.value
            wishes |= entries_as_wishes(service_entries(*key, [self._ids.number(endpoint) for endpoint in after]))
        gone: Wishes = {}
        for entry in service_entries(*key, [1] * len(before)):
            if (entry.map, entry.key) not in wishes:
                gone[entry.map, entry.key] = None
        for endpoint in before:
            if entry := self._ids.release(endpoint):
                gone[entry.map, entry.key] = None
        return gone | wishes

    def _in_order(self, key: FrontendKey, endpoints: Mapping[Endpoint, None]) -> tuple[Endpoint, ...]:
        """As long as some are retained those that were found keep their slots: nothing is written only to move them."""
        if key not in self._retained:
            return tuple(endpoints)
        found = (endpoint for endpoint in self._order[key] if endpoint in endpoints)
        return tuple(dict.fromkeys((*found, *endpoints)))


def _frontends(service: GlobalService | None) -> dict[FrontendKey, tuple[Endpoint, ...]]:
    if service is None:
        return {}
    return {
        (frontend.address, frontend.port, PROTOCOLS[frontend.protocol]): usable(
            (backend.address, backend.port, backend.protocol) for backend in frontend.backends
        )
        for frontend in service.frontends
        if is_usable(frontend.port, frontend.protocol)
    }
