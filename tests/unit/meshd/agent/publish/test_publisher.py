from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from identity.allocation import Allocator
from identity.numbering import identity_range
from meshd.agent.decoding import decode_object, kind_of
from meshd.agent.objects import KubernetesObject, Ref
from meshd.agent.publish.publisher import Publisher
from meshd.agent.publish.scope import Scope
from meshd.agent.state import Changes, LocalState
from tests.support import kubernetes
from wire import keys
from wire.codec import Scope as ReaderScope
from wire.codec import decode
from wire.keys import Kind
from wire.records import IP

SCOPE = Scope(cluster="c1", cluster_id=1)


class Desk:
    """A publisher with everything around it: what it says is kept, what it asks for is given."""

    def __init__(self, numbers: dict[int, str] | None = None) -> None:
        self.state = LocalState()
        self.identities = Allocator(identity_range(1))
        self.publisher = Publisher(SCOPE, self.state, self.identities)
        self.desired: dict[str, bytes] = {}
        self.said: set[str] = set()
        if numbers is not None:
            self.identities.restore(numbers)
            self.publisher.restored()

    def apply(self, *documents: dict[str, Any], deletes: tuple[Ref, ...] = ()) -> None:
        upserts = dict(decode_object(kind, each) for each in documents if (kind := kind_of(each)))
        self.take(Changes(upserts, set(deletes)))

    def take(self, changes: Changes) -> None:
        self.publisher.mark(self.state.apply(changes))
        self.work()

    def work(self, *, settle: bool = True) -> None:
        self.said = set()
        while self.publisher.is_dirty or (settle and self.publisher.wanted()):
            for labels in self.publisher.wanted() if settle else ():
                number = self.identities.propose(labels)
                self.identities.settle(number, labels)
                self.publisher.settled([number])
            for key, value in self.publisher.compute(2).items():
                if self.desired.get(key) != value:
                    self.said.add(key)
                self.desired.pop(key, None)
                if value is not None:
                    self.desired[key] = value

    def names(self, kind: Kind) -> set[str]:
        prefix = keys.prefix(kind, "c1")
        return {key.removeprefix(prefix) for key in self.desired if key.startswith(prefix)}

    def ip(self, address: str) -> IP:
        value = self.desired[keys.record(Kind.IP, "c1", address)]
        record = decode(Kind.IP, address, value, ReaderScope("c1", 1, identity_range(1)))
        assert isinstance(record, IP)
        return record


def ref(document: dict[str, Any]) -> Ref:
    kind = kind_of(document)
    assert kind
    return decode_object(kind, document)[0]


WEB = kubernetes.service("web", "30.1.1.1", selector={"app": "web"})
POD = kubernetes.pod("p", "10.0.0.1", labels={"app": "web"})


def test_a_pod_is_published_with_its_identity() -> None:
    desk = Desk()
    desk.apply(POD)
    number = desk.ip("10.0.0.1").id
    assert desk.names(Kind.IDENTITY) == {str(number)}
    assert b"k8s:app=web;" in desk.desired[keys.record(Kind.IDENTITY, "c1", str(number))]


def test_nothing_is_said_of_a_pod_before_its_number_is_settled() -> None:
    desk = Desk()
    desk.publisher.mark(desk.state.apply(Changes(dict([decode_object(kind_of(POD) or ref(POD).kind, POD)]))))
    desk.work(settle=False)
    assert desk.names(Kind.IP) == set()
    assert len(desk.publisher.wanted()) == 1
    desk.work()
    assert desk.names(Kind.IP) == {"10.0.0.1"}
    assert desk.publisher.wanted() == []


def test_nobody_asks_for_a_number_for_pods_that_are_gone() -> None:
    desk = Desk()
    desk.publisher.mark(desk.state.apply(Changes({ref(POD): decode_object(ref(POD).kind, POD)[1]})))
    desk.work(settle=False)
    desk.publisher.mark(desk.state.apply(Changes(deletes={ref(POD)})))
    desk.work(settle=False)
    assert desk.publisher.wanted() == []


def test_a_pod_without_a_number_to_have_is_not_published_with_an_old_one() -> None:
    desk = Desk()
    desk.apply(POD)
    relabelled = kubernetes.pod("p", "10.0.0.1", labels={"app": "other"})
    desk.publisher.mark(desk.state.apply(Changes({ref(POD): decode_object(ref(POD).kind, relabelled)[1]})))
    desk.work(settle=False)
    assert desk.names(Kind.IP) == {"10.0.0.1"}
    desk.publisher.refuse(desk.publisher.wanted()[0], "all are taken")
    desk.work(settle=False)
    assert desk.names(Kind.IP) == set()
    assert desk.publisher.problems() == {ref(POD): ("all are taken",)}
    desk.apply(POD)
    assert desk.names(Kind.IP) == {"10.0.0.1"}
    assert desk.publisher.problems() == {}


def test_a_change_says_only_what_depends_on_it() -> None:
    desk = Desk()
    others = [kubernetes.pod(f"q{number}", f"10.0.1.{number}", labels={"app": "web"}) for number in range(9)]
    other = kubernetes.service("db", "30.1.1.2", selector={"app": "db"})
    desk.apply(WEB, other, POD, *others, kubernetes.node("node-1"))
    desk.apply(kubernetes.pod("p", "10.0.0.1", labels={"app": "web"}, ready=False))
    assert desk.said == {"cilium/state/services/v1/c1/default/web", "meshd/v1/services/default/web"}
    desk.apply(kubernetes.pod("p", "10.0.0.1", labels={"app": "web"}, ready=False))
    assert desk.said == set()


def test_toggling_is_a_delete() -> None:
    desk = Desk()
    desk.apply(WEB)
    assert desk.names(Kind.SERVICE) == desk.names(Kind.LOCAL_SERVICE) == {"default/web"}
    desk.apply(kubernetes.service("web", "30.1.1.1", annotations=kubernetes.GLOBAL_NOT_SHARED))
    assert desk.names(Kind.SERVICE) == set()
    assert desk.names(Kind.LOCAL_SERVICE) == {"default/web"}
    desk.apply(kubernetes.service("web", "30.1.1.1", annotations={}))
    assert desk.names(Kind.LOCAL_SERVICE) == set()
    desk.apply(WEB)
    desk.apply(deletes=(ref(WEB),))
    assert desk.names(Kind.SERVICE) == desk.names(Kind.LOCAL_SERVICE) == set()


def test_what_cannot_be_understood_is_shown_to_the_own_daemons_only() -> None:
    desk = Desk()
    desk.apply(kubernetes.service("s", annotations={"service.cilium.io/global": "maybe", "example.org/x": "1"}))
    assert (desk.names(Kind.SERVICE), desk.names(Kind.LOCAL_SERVICE)) == (set(), {"default/s"})
    (record,) = desk.desired.values()
    assert b"maybe" in record
    assert b"example.org" not in record


def test_a_namespace_that_is_not_global_shows_nothing() -> None:
    desk = Desk()
    node = kubernetes.node("node-1")
    desk.apply(WEB, POD, node, kubernetes.namespace("default"))
    shown = dict(desk.desired)
    desk.apply(kubernetes.namespace("default", is_global=False))
    assert list(desk.desired) == [keys.record(Kind.NODE, "c1", "node-1")]
    desk.apply(kubernetes.namespace("default", is_global=True))
    assert desk.desired == shown


def test_labels_of_the_namespace_change_the_identity() -> None:
    desk = Desk()
    desk.apply(POD, kubernetes.namespace("default"))
    before = desk.ip("10.0.0.1").id
    desk.apply(kubernetes.namespace("default", labels={"team": "x"}))
    assert desk.ip("10.0.0.1").id != before
    desk.apply(kubernetes.namespace("default"))
    assert desk.ip("10.0.0.1").id == before


def test_an_address_that_moves_is_handed_over() -> None:
    desk = Desk()
    desk.apply(POD)
    successor = kubernetes.pod("a-new-one", "10.0.0.1", labels={"app": "web"})
    desk.apply(successor, kubernetes.pod("p", "10.0.0.1", labels={"app": "web"}, terminating=True))
    assert desk.ip("10.0.0.1").pod_name == "a-new-one"
    assert desk.publisher.shared_addresses() == [("10.0.0.1", ["default/a-new-one", "default/p"])]
    desk.apply(deletes=(ref(POD),))
    assert desk.said == set()
    assert desk.publisher.shared_addresses() == []
    desk.apply(POD, deletes=(ref(successor),))
    assert desk.ip("10.0.0.1").pod_name == "p"


def test_numbers_that_no_address_uses_are_known() -> None:
    desk = Desk({70000: "k8s:app=old;"})
    assert desk.publisher.unused() == {70000}
    desk.apply(POD, kubernetes.pod("q", "10.0.0.2", labels={"app": "web"}))
    number = desk.ip("10.0.0.1").id
    desk.apply(deletes=(ref(POD),))
    assert desk.publisher.unused() == {70000}
    desk.apply(kubernetes.pod("q", "10.0.0.2", labels={"app": "other"}))
    assert desk.publisher.unused() == {70000, number}
    assert desk.names(Kind.IDENTITY) == {str(number), str(desk.ip("10.0.0.2").id), "70000"}
    desk.identities.free(number)
    desk.publisher.freed(number)
    desk.work()
    assert desk.publisher.unused() == {70000}
    assert str(number) not in desk.names(Kind.IDENTITY)
    desk.apply(POD)
    assert desk.ip("10.0.0.1").id == number


def test_a_zone_follows_the_node() -> None:
    desk = Desk()
    desk.apply(WEB, POD, kubernetes.node("node-1"))
    desk.apply(kubernetes.node("node-1", labels={"topology.kubernetes.io/zone": "eu-1a"}))
    assert b'"zones":{"10.0.0.1":{"zone":"eu-1a"' in desk.desired["cilium/state/services/v1/c1/default/web"]
    assert desk.said == {
        "cilium/state/nodes/v1/c1/node-1",
        "cilium/state/services/v1/c1/default/web",
        "meshd/v1/services/default/web",
    }


def test_problems_come_and_go_with_their_object() -> None:
    desk = Desk()
    odd = kubernetes.service("web", annotations=kubernetes.GLOBAL | {"service.cilium.io/affinity": "nearby"})
    bad = kubernetes.node("n", "nowhere")
    desk.apply(odd, bad)
    assert set(desk.publisher.problems()) == {ref(odd), ref(bad)}
    desk.apply(WEB, deletes=(ref(bad),))
    assert desk.publisher.problems() == {}


NAMESPACES, NAMES, IPS = ["default", "shop"], ["a", "b", "c"], ["10.0.0.1", "10.0.0.2", "fd00::1"]
LABELS = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["x", "y"]), max_size=2)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    name, namespace = draw(st.sampled_from(NAMES)), draw(st.sampled_from(NAMESPACES))
    match draw(st.sampled_from(["namespace", "node", "pod", "pod", "pod", "service", "service", "slice"])):
        case "namespace":
            is_global = draw(st.sampled_from([None, True, False]))
            return kubernetes.namespace(namespace, labels=draw(LABELS), is_global=is_global)
        case "node":
            labels = draw(st.sampled_from([{}, {"topology.kubernetes.io/zone": "eu-1a"}]))
            return kubernetes.node(name, labels=labels)
        case "pod":
            ips = draw(st.lists(st.sampled_from(IPS), max_size=2, unique=True))
            return kubernetes.pod(
                name,
                *ips,
                namespace=namespace,
                labels=draw(LABELS),
                ready=draw(st.booleans()),
                terminating=draw(st.booleans()),
                host_network=draw(st.sampled_from([False, False, True])),
                phase=draw(st.sampled_from(["Running", "Running", "Succeeded"])),
                node=draw(st.sampled_from(NAMES)),
            )
        case "service":
            annotations = draw(st.sampled_from([kubernetes.GLOBAL, kubernetes.GLOBAL_NOT_SHARED, {}]))
            return kubernetes.service(
                name, "30.1.1.1", namespace=namespace, selector=draw(LABELS), annotations=annotations
            )
        case _:
            endpoints = [{"addresses": [ip]} for ip in draw(st.lists(st.sampled_from(IPS), max_size=2))]
            return kubernetes.endpoint_slice(name, draw(st.sampled_from(NAMES)), endpoints, namespace=namespace)


History = list[tuple[bool, dict[str, Any]]]
STEPS: st.SearchStrategy[History] = st.lists(st.tuples(st.booleans(), documents()), max_size=25)


@settings(max_examples=300)
@given(STEPS)
def test_whatever_the_history_the_keys_are_those_of_computing_afresh(
    history: list[tuple[bool, dict[str, Any]]],
) -> None:
    incremental = Desk()
    objects: dict[Ref, KubernetesObject] = {}
    for is_upsert, document in history:
        if is_upsert:
            name, decoded = decode_object(ref(document).kind, document)
            objects[name] = decoded
            incremental.take(Changes({name: decoded}))
        else:
            objects.pop(ref(document), None)
            incremental.take(Changes(deletes={ref(document)}))
    afresh = Desk(dict(incremental.identities.allocations()))
    afresh.take(Changes(objects, synced=True))
    assert incremental.desired == afresh.desired
    assert incremental.publisher.problems() == afresh.publisher.problems()
    assert incremental.publisher.shared_addresses() == afresh.publisher.shared_addresses()
    assert incremental.state.count() == afresh.state.count()
    assert incremental.publisher.unused() == afresh.publisher.unused()
