"""From global services to their entries: frontends, slots, backends. Pure.

After a restart the maps hold backends of clusters that have not been heard yet. They are `retained`: kept behind
their frontends until their cluster has synced, so that no service loses a backend because a source is late.
"""

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, replace

from datapath.entries import MAX_SLOTS, backend_entry, frontend_entry, mark_entry
from datapath.maglev import DEFAULT_SIZE, ENTRY_BYTES
from globalsvc.merge import Frontend, GlobalService
from globalsvc.preferences import Balancing
from identity.claims import Claims
from meshd.daemon.backends import PROTOCOLS, BackendIds, Endpoint, is_usable
from meshd.daemon.frontends import FrontendKey, Published, Wanted, compute_entries
from meshd.daemon.wishes import Wishes
from meshd.reconcile.target import Item


@dataclass(frozen=True, slots=True)
class Restored:
    """What the maps held at the start: frontends with their backends, and the backends' numbers.

    `mark`: the number after which the next new one comes; None: there is no such entry.
    """

    frontends: Mapping[FrontendKey, tuple[Endpoint, ...]]
    numbers: Mapping[int, Endpoint]
    mark: int | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """What `meshd service list` tells of a service."""

    frontends: tuple[FrontendKey, ...]
    problems: tuple[str, ...]


class Services:
    """Incremental: `update` costs the services that changed. `merge` says what a service is now.

    `now` is monotonic, in seconds; whoever calls keeps it up to date.
    """

    def __init__(
        self,
        merge: Callable[[str], GlobalService | None],
        *,
        balancing: Balancing = Balancing.RANDOM,
        table_size: int = DEFAULT_SIZE,
    ) -> None:
        self._merge = merge
        self.balancing = balancing
        self.table_size = table_size
        self.now = 0.0
        self._ids = BackendIds()
        self._claims: Claims[FrontendKey, Wanted] = Claims(lambda name: ())
        self.summaries: dict[str, Summary] = {}
        self.with_problems: dict[str, tuple[str, ...]] = {}
        self.naming: dict[str, frozenset[str]] = {}
        """Clusters that a service's annotations name."""
        self._published: dict[FrontendKey, Published] = {}
        self._retained: dict[FrontendKey, tuple[Endpoint, ...]] = {}
        self._order: dict[FrontendKey, tuple[Endpoint, ...]] = {}
        self._refused: Set[Endpoint] = frozenset()

    def __len__(self) -> int:
        return len(self.summaries)

    def tables(self) -> dict[str, int]:
        """How many Maglev tables there are, and the memory that they take in the kernel."""
        count = sum(1 for published in self._published.values() if published.has_table)
        return {"tables": count, "entries": self.table_size, "bytes": count * self.table_size * ENTRY_BYTES}

    @property
    def retained(self) -> int:
        """Backends that are kept although no cluster that was heard offers them."""
        return sum(map(len, self._retained.values()))

    def retained_of(self, key: FrontendKey) -> tuple[Endpoint, ...]:
        return self._retained.get(key, ())

    def placed(self, key: FrontendKey) -> tuple[Endpoint, ...]:
        """The backends in a frontend's slots."""
        published = self._published.get(key)
        return published.endpoints if published else ()

    def owner(self, key: FrontendKey) -> str:
        """The service that has this frontend, "" if none."""
        winner = self._claims.winner(key)
        return winner[0] if winner else ""

    def backend_item(self, endpoint: Endpoint) -> Item | None:
        """Where a backend stands in the maps; None if nobody uses it."""
        if not self._ids.known(endpoint):
            return None
        entry = backend_entry(self._ids.number(endpoint), *endpoint)
        return entry.map, entry.key

    def frontend_item(self, key: FrontendKey) -> Item:
        """Where a frontend stands in the maps."""
        entry = frontend_entry(*key, count=0)
        return entry.map, entry.key

    def restore(self, restored: Restored) -> Wishes:
        """Nothing that is wished differs from what was found."""
        self._ids.restore(restored.numbers, restored.mark or 0)
        self._retained = dict(restored.frontends)
        self._order = dict(restored.frontends)
        return {} if restored.mark is None else self._mark()

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
        self._ids.forget_restored(self.now)

    def refuse(self, endpoints: Set[Endpoint]) -> Wishes:
        """The kernel could not take these backends; all others it can. A frontend does without them until it can, so
        that it keeps no slot for one that left, whose room is needed.
        """
        changed = self._refused ^ endpoints
        self._refused = endpoints
        wishes: Wishes = {}
        for key in [key for key, published in self._published.items() if not changed.isdisjoint(published.referred)]:
            wishes |= self._publish(key)
        return wishes

    def update(self, names: Iterable[str]) -> Wishes:
        wishes: Wishes = {}
        mark = self._ids.mark
        for name in names:
            before = self.summaries.pop(name, None)
            self.with_problems.pop(name, None)
            self.naming.pop(name, None)
            service = self._merge(name)
            after = self._wanted(service) if service else {}
            if service and (after or service.problems):
                self._remember(service, after)
            for key in dict.fromkeys((*(before.frontends if before else ()), *after)):
                if key in after:
                    self._claims.put(key, name, after[key])
                else:
                    self._claims.drop(key, name)
                wishes |= self._publish(key)
        return wishes if self._ids.mark == mark else wishes | self._mark()

    def _mark(self) -> Wishes:
        entry = mark_entry(self._ids.mark)
        return {(entry.map, entry.key): entry.value}

    def _remember(self, service: GlobalService, wanted: Mapping[FrontendKey, Wanted]) -> None:
        problems = service.problems
        if any(each.is_too_many_for(self.table_size) for each in wanted.values()):
            problems += (f"more backends than the {self.table_size} entries of a Maglev table: chosen at random",)
        if any(len(each.weights) > MAX_SLOTS for each in wanted.values()):
            problems += (f"more backends than the {MAX_SLOTS} slots of a frontend: the others are not used",)
        self.summaries[service.name] = Summary(tuple(wanted), problems)
        if problems:
            self.with_problems[service.name] = problems
        if service.clusters:
            self.naming[service.name] = service.clusters

    def _publish(self, key: FrontendKey) -> Wishes:
        """What changes in the entries of one frontend and of the backends it uses."""
        before = self._published.pop(key, None)
        held = before.referred if before else set()
        winner = self._claims.winner(key)
        wishes: Wishes = {}
        after = None
        wanted: set[Endpoint] = set()
        if winner is not None:
            after, acquired = self._compute(key, winner[1], before, held)
            wanted = after.referred
            wishes |= acquired | after.changes(before)
            self._published[key] = after
        gone: Wishes = before.leftovers(after) if before else {}
        for endpoint in held - wanted:
            if entry := self._ids.release(endpoint, self.now):
                gone[entry.map, entry.key] = None
        return gone | wishes

    def _compute(
        self, key: FrontendKey, wanted: Wanted, before: Published | None, held: Set[Endpoint]
    ) -> tuple[Published, Wishes]:
        """What the frontend is to be, and the entries of the backends that nobody used before."""
        retained = self._retained.get(key, ())
        order = before.endpoints if before else self._order.get(key, ())
        endpoints = wanted.place(order, retained, self._refused)[:MAX_SLOTS]
        waiting = wanted.waiting(retained, self._refused)
        acquired: Wishes = {}
        for endpoint in {*endpoints, *waiting} - held:
            _, entry = self._ids.acquire(endpoint, self.now)
            if entry:
                acquired[entry.map, entry.key] = entry.value
        numbers = [self._ids.number(endpoint) for endpoint in endpoints]
        made = compute_entries(key, wanted, endpoints, numbers, self.table_size)
        return (replace(made, waiting=waiting) if waiting else made), acquired

    def _wanted(self, service: GlobalService) -> dict[FrontendKey, Wanted]:
        return {
            (frontend.address, frontend.port, PROTOCOLS[frontend.protocol]): self._wanted_of(service, frontend)
            for frontend in service.frontends
            if is_usable(frontend.port, frontend.protocol)
        }

    def _wanted_of(self, service: GlobalService, frontend: Frontend) -> Wanted:
        weights = frontend.weights or (1,) * len(frontend.backends)
        return Wanted(
            weights={
                (backend.address, backend.port, PROTOCOLS[backend.protocol]): weight
                for backend, weight in zip(frontend.backends, weights, strict=True)
                if is_usable(backend.port, backend.protocol)
            },
            session_affinity_timeout_s=service.session_affinity_timeout_s,
            maglev=(service.balancing or self.balancing) is Balancing.MAGLEV,
        )
