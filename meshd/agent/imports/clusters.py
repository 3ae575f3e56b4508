"""The other clusters as the agent hears them: the daemon's connections and their checks, for services alone."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NoReturn

from identity.numbering import identity_range
from meshd.agent.index import ObjectName
from meshd.daemon.allowance import DEFAULT_ALLOWANCE, OWN_CLUSTER, Allowance
from meshd.daemon.clustermesh import Clustermesh
from meshd.daemon.members import Members
from meshd.daemon.pacer import LISTS_APART_S, Pacer
from meshd.daemon.presence import PresenceState
from meshd.daemon.remote import Remote
from meshd.daemon.remotefile import RemoteFile
from meshd.daemon.store import Store
from meshd.daemon.suspicion import Suspicion
from meshd.daemon.timeline import Timeline
from meshd.daemon.watch import Changes
from wire.codec import Scope
from wire.keys import Kind
from wire.records import Service

LOOK_S = 1.0
#: Names that are taken from the store at once.
SLICE = 2000


class Clusters:
    """Connects from `start` on. `wake` is called when there is something to `take`."""

    def __init__(
        self, folder: Path, *, cluster: str, cluster_id: int, max_clusters: int, wake: Callable[[], None]
    ) -> None:
        self._folder, self._own, self._wake = folder, cluster, wake
        self._members = Members(cluster, cluster_id, max_clusters=max_clusters)
        self._store = Store(wake, allowance=self._allowance)
        self._store.expect(cluster)
        self._store.accept(cluster, Scope(cluster, cluster_id, identity_range(cluster_id, max_clusters=max_clusters)))
        self._suspicion = Suspicion(self._store, cluster, self._allowance)
        self._timeline = Timeline()
        self._pacer = Pacer(LISTS_APART_S)
        self._clustermesh: Clustermesh | None = None

    def start(self, group: asyncio.TaskGroup) -> None:
        self._clustermesh = Clustermesh(
            self._folder,
            own=self._own,
            group=group,
            make=self._make,
            leave=self._leave,
            changed=self._suspicion.reconsider,
        )
        self._clustermesh.refresh()
        group.create_task(self._clustermesh.follow(), name="clustermesh")
        group.create_task(self._look(), name="presence")

    def say_own_nodes(self, records: Mapping[str, bytes | None]) -> None:
        """Our nodes as they are published (None: gone): nobody else may say that their addresses are its own."""
        puts = {name: value for name, value in records.items() if value is not None}
        changes = Changes(puts, {name for name, value in records.items() if value is None})
        self._store.apply(self._own, Kind.NODE, changes, now=time.monotonic())

    def take(self) -> tuple[set[ObjectName], bool]:
        """Services of which something else may be believed now, and whether there are more."""
        self._suspicion.now = time.monotonic()
        services: set[ObjectName] = set()
        for (cluster, kind), names in self._store.take(SLICE).items():
            if cluster == self._own:
                self._suspicion.own_changed(kind, names)
            else:
                services |= {_split(name) for name in names}
        return services, bool(self._store.dirty)

    def services(self, name: ObjectName) -> dict[str, Service]:
        found = {}
        for remote in self._remotes():
            if remote.presence.state is PresenceState.WITHDRAWN:
                continue
            if record := self._suspicion.believed_service(remote.cluster, "/".join(name)):
                found[remote.cluster] = record
        return found

    def may_go(self, cluster: str) -> bool:
        problems = self._clustermesh.problems if self._clustermesh else {"": ""}
        if any(remote.cluster == cluster for remote in self._remotes()):
            return self._store.synced(cluster, [Kind.SERVICE])
        return "" not in problems and cluster not in problems

    def heard(self) -> object:
        """Another one than before: what `may_go` says may be something else for some cluster."""
        problems = self._clustermesh.problems if self._clustermesh else {}
        remotes = {remote.cluster: self._store.synced(remote.cluster, [Kind.SERVICE]) for remote in self._remotes()}
        return remotes, set(problems)

    def report(self) -> dict[str, object]:
        """Each cluster's link, and the files that cannot be used."""
        links = {
            remote.cluster: {"link": remote.link.state, "reason": remote.link.reason, "presence": remote.presence.state}
            for remote in self._remotes()
        }
        return {"clusters": links, "files": dict(self._clustermesh.problems) if self._clustermesh else {}}

    def _remotes(self) -> Iterable[Remote]:
        return self._clustermesh.remotes.values() if self._clustermesh else ()

    def _allowance(self, cluster: str) -> Allowance:
        if cluster == self._own:
            return OWN_CLUSTER
        remote = self._clustermesh.remotes.get(cluster) if self._clustermesh else None
        return remote.allowance if remote else DEFAULT_ALLOWANCE

    def _make(self, file: RemoteFile) -> Remote:
        return Remote(
            file,
            kinds=[Kind.SERVICE],
            store=self._store,
            members=self._members,
            on_change=self._wake,
            timeline=self._timeline,
            pacer=self._pacer,
        )

    def _leave(self, cluster: str) -> None:
        self._store.drain(cluster)
        self._members.leave(cluster)
        self._suspicion.forget(cluster)

    async def _look(self) -> NoReturn:
        """There are no probes here: a cluster that is silent is believed for its max-stale."""
        while True:
            now = time.monotonic()
            self._members.release()  # nothing here goes by the ID
            for remote in self._remotes():
                remote.look(now)
                if remote.presence.judge(now, remote.allowance, answers=None):
                    self._suspicion.reconsider(remote.cluster)
            await asyncio.sleep(LOOK_S)


def _split(name: str) -> ObjectName:
    namespace, _, service = name.partition("/")
    return namespace, service
