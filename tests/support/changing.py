"""Services that change on real maps, written as the daemon does it."""

import random
from dataclasses import dataclass, field
from ipaddress import ip_address

from datapath.maps import Maps
from globalsvc.backend import Backend
from globalsvc.merge import Frontend, GlobalService
from globalsvc.preferences import Balancing
from meshd.daemon.kernel import MAPS, MapShape, MapTarget
from meshd.daemon.mesh import SERVICE_MAPS
from meshd.daemon.restoration import restore
from meshd.daemon.services import Services
from meshd.reconcile.delta import Delta
from meshd.reconcile.execution import execute


@dataclass
class Changing:
    """The daemon's own computation and reconciler on a node's maps, with services as a dictionary."""

    maps: Maps
    model: dict[str, GlobalService] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.services = Services(self.model.get)
        self.target = MapTarget(self.maps)
        self.delta = Delta(MapShape())
        held = {name: self.target.dump(name) for name in MAPS}
        for name, entries in held.items():
            self.delta.restore(name, entries)
        self.services.restore(restore(held, max_clusters=255).services)

    def clear(self) -> None:
        """Everything was heard, and nothing of what was found is wanted."""
        self.services.forget_restored()
        for name in SERVICE_MAPS:
            self.delta.prune(name, lambda key, value: True)
        self.write()

    def set(self, service: GlobalService) -> int:
        """How many entries were written or removed for it."""
        self.want(service)
        return self.write()

    def want(self, service: GlobalService) -> None:
        self.model[service.name] = service
        for (map, key), value in self.services.update([service.name]).items():
            self.delta.want(map, key, value)

    def write(self) -> int:
        round = self.delta.plan()
        if round is None:
            return 0
        outcome = execute(round, self.target, MapShape(), self.delta.realised, self.delta.possible)
        assert not outcome.failed
        for map, written in outcome.done.items():
            self.delta.record(map, written)
        return outcome.upserts + outcome.deletes


def service(name: str, address: object, backends: list[Backend], balancing: Balancing, weighted: bool) -> GlobalService:
    weights = tuple(random.randint(1, 5) for _ in backends) if weighted else ()
    frontend = Frontend(ip_address(str(address)), 80, "TCP", "", tuple(backends), weights)
    return GlobalService(name, (frontend,), balancing=balancing)
