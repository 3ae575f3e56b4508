from collections.abc import Mapping
from typing import Any

from meshd.agent.decoding import decode_object, kind_of
from meshd.agent.imports.plan import Operation, Plan, Verb
from meshd.agent.imports.slices import document_of
from meshd.agent.index import ObjectName
from meshd.agent.objects import KubernetesObject, Ref
from meshd.agent.state import Changes, LocalState
from tests.support import kubernetes
from wire.records import L4Addr, Service

DB = ("default", "db")
HEADLESS = kubernetes.service("db", "None")
CREATE, UPDATE, DELETE = Verb.CREATE, Verb.UPDATE, Verb.DELETE


class Others:
    """What other clusters say; `unheard` have not said everything."""

    def __init__(self, **backends: list[str]) -> None:
        self.backends = backends
        self.unheard: set[str] = set()

    def services(self, name: ObjectName) -> Mapping[str, Service]:
        http = {"http": L4Addr("TCP", 80)}
        return {
            cluster: Service(cluster=cluster, backends=dict.fromkeys(ips, http))
            for cluster, ips in self.backends.items()
            if name == DB
        }

    def may_go(self, cluster: str) -> bool:
        return cluster not in self.unheard


class Desk:
    """A plan beside a state, and an API server that takes everything."""

    def __init__(self, *documents: dict[str, Any], whole: bool = True) -> None:
        self.state = LocalState()
        self.plan = Plan(self.state, lambda namespace: namespace != "hidden")
        self.take(*documents, whole=whole)

    def take(self, *documents: dict[str, Any], deletes: tuple[Ref, ...] = (), whole: bool = True) -> None:
        upserts: dict[Ref, KubernetesObject] = {}
        for document in documents:
            if kind := kind_of(document):
                ref, known = decode_object(kind, document)
                upserts[ref] = known
        changes = Changes(upserts, set(deletes), synced=True, whole=whole)
        self.state.apply(changes)
        self.plan.take(changes)

    def run(self, others: Others) -> list[Verb]:
        """Does what is due; the API server tells of it."""
        found: list[Operation] = []
        services, self.plan.dirty = self.plan.dirty, set()
        for service in services:
            for operation in self.plan.operations(service, others):
                found.append(operation)
                self.plan.done(operation)
                document = document_of(operation.slice)
                ref = decode_object(kind, document)[0] if (kind := kind_of(document)) else None
                assert ref
                if operation.verb is DELETE:
                    self.take(deletes=(ref,))
                else:
                    self.take(document)
        return [operation.verb for operation in found]

    def addresses(self) -> set[str]:
        return {ip for each in self.plan.slices.values() for e in each.endpoints for ip in e.addresses}


def test_a_headless_global_service_gets_slices_and_nothing_is_done_twice() -> None:
    desk, others = Desk(HEADLESS), Others(c2=["20.0.0.1"], c3=["30.0.0.1"])
    assert desk.run(others) == [CREATE, CREATE]
    assert desk.addresses() == {"20.0.0.1", "30.0.0.1"}
    desk.plan.doubt()
    assert desk.run(others) == []
    others.backends["c2"].append("20.0.0.2")
    desk.plan.doubt()
    assert desk.run(others) == [UPDATE]


def test_only_headless_global_services_that_want_it_take_part() -> None:
    for document in (
        kubernetes.service("db", "30.1.1.1"),
        kubernetes.service("db", "None", annotations={}),
        kubernetes.service(
            "db", "None", annotations=kubernetes.GLOBAL | {"service.cilium.io/global-sync-endpoint-slices": "False"}
        ),
    ):
        desk, others = Desk(HEADLESS), Others(c2=["20.0.0.1"])
        assert desk.run(others) == [CREATE]
        desk.take(document)
        assert desk.run(others) == [DELETE]
    hidden = Desk(kubernetes.service("db", "None", namespace="hidden"))
    assert hidden.run(Others(c2=["20.0.0.1"])) == []


def test_a_service_that_goes_takes_its_slices_along() -> None:
    desk, others = Desk(HEADLESS), Others(c2=["20.0.0.1"])
    desk.run(others)
    (ref,) = [Ref(kind, *DB) for kind in [kind_of(HEADLESS)] if kind]
    desk.take(deletes=(ref,), whole=False)
    assert desk.run(others) == [], "it may be one that cannot be read"
    desk.take(HEADLESS, whole=True)
    desk.take(deletes=(ref,))
    assert desk.run(others) == [DELETE]


def test_a_cluster_that_was_not_heard_keeps_its_slices() -> None:
    desk, others = Desk(HEADLESS), Others(c2=["20.0.0.1"], c3=["30.0.0.1"])
    desk.run(others)
    others.backends.clear()
    others.unheard.add("c2")
    desk.plan.doubt()
    assert desk.run(others) == [DELETE]
    assert desk.addresses() == {"20.0.0.1"}
    others.unheard.clear()
    desk.plan.doubt()
    assert desk.run(others) == [DELETE]


def test_slices_of_others_are_none_of_ours() -> None:
    foreign = kubernetes.endpoint_slice("f", "db", [{"addresses": ["20.0.0.9"]}])
    desk = Desk(HEADLESS, foreign)
    assert desk.plan.slices == {}
    assert desk.run(Others()) == []


def test_what_somebody_did_to_a_slice_is_undone() -> None:
    desk, others = Desk(HEADLESS), Others(c2=["20.0.0.1"])
    desk.run(others)
    (each,) = desk.plan.slices.values()
    desk.take(document_of(each) | {"endpoints": []})
    assert desk.run(others) == [UPDATE]
    assert desk.addresses() == {"20.0.0.1"}


def test_creates_come_before_updates_and_deletes_last() -> None:
    desk, others = Desk(HEADLESS), Others(c2=[f"20.0.0.{n}" for n in range(1, 60)])
    assert desk.run(others) == [CREATE]
    others.backends["c2"] += [f"20.0.1.{n}" for n in range(1, 60)]
    desk.plan.doubt()
    assert desk.run(others) == [CREATE, UPDATE]
    del others.backends["c2"][50:]
    desk.plan.doubt()
    assert desk.run(others) == [UPDATE, DELETE]
