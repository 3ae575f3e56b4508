import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.numbering import identity_range
from meshd.daemon.allowance import Allowance, Quota
from meshd.daemon.store import Shelf, Store
from meshd.daemon.watch import Changes
from tests.support import records
from wire.codec import Scope
from wire.keys import Kind

SCOPE = Scope("cluster2", 2, identity_range(2))


class Woken(Store):
    """Counts how often somebody was woken."""

    def __init__(self) -> None:
        self.wakes = 0
        super().__init__(self._count)
        self.expect("cluster2")
        self.accept("cluster2", SCOPE)

    def _count(self) -> None:
        self.wakes += 1

    def put(self, built: records.Records, *, kind: Kind = Kind.IP, now: float = 1.0) -> None:
        puts = {key.rpartition("/")[2]: value.encode() for key, value in built.items()}
        self.apply("cluster2", kind, Changes(puts), now=now)

    def delete(self, *names: str) -> None:
        self.apply("cluster2", Kind.IP, Changes({}, set(names)), now=2.0)


@pytest.fixture
def store() -> Woken:
    return Woken()


POD = records.ip("cluster2", "20.0.0.1", "172.18.2.11", 131073)
OUTSIDE = records.ip("cluster2", "20.0.0.2", "172.18.2.11", 99999)


def test_a_name_is_dirty_once_however_often_it_changes(store: Woken) -> None:
    store.put(POD)
    store.delete("20.0.0.1")
    store.put(POD)
    assert store.take(10) == {("cluster2", Kind.IP): {"20.0.0.1"}}
    assert store.take(10) == {}


def test_an_equal_record_wakes_nobody(store: Woken) -> None:
    store.put(POD)
    wakes = store.wakes
    store.put(POD)
    assert store.wakes == wakes


def test_dirty_names_are_taken_in_slices(store: Woken) -> None:
    for host in range(1, 6):
        store.put(records.ip("cluster2", f"20.0.0.{host}", "172.18.2.11", 131073))
    taken = [len(store.take(2)[("cluster2", Kind.IP)]) for _ in range(3)]
    assert taken == [2, 2, 1]
    assert not store.dirty


def test_a_bad_record_is_counted_by_reason_and_costs_only_itself(store: Woken) -> None:
    store.put(POD | OUTSIDE)
    shelf = store.clusters["cluster2"].shelf(Kind.IP)
    assert (shelf.offered, len(shelf.records), dict(shelf.reasons())) == (2, 1, {"identity-out-of-range": 1})
    assert shelf.rejected["20.0.0.2"].since == 1.0


def test_a_bad_value_leaves_the_older_record_until_the_next_complete_list(store: Woken) -> None:
    store.put(POD)
    store.apply("cluster2", Kind.IP, Changes({"20.0.0.1": b"?"}), now=3.0)
    assert store.record("cluster2", Kind.IP, "20.0.0.1") is not None
    assert store.clusters["cluster2"].shelf(Kind.IP).offered == 1
    store.take(10)
    store.listed("cluster2", Kind.IP, now=4.0)
    assert store.record("cluster2", Kind.IP, "20.0.0.1") is None
    assert store.take(10) == {("cluster2", Kind.IP): {"20.0.0.1"}}


def test_a_good_value_ends_the_rejection(store: Woken) -> None:
    store.apply("cluster2", Kind.IP, Changes({"20.0.0.1": b"?"}), now=3.0)
    store.put(POD)
    assert not store.clusters["cluster2"].shelf(Kind.IP).rejected


def test_a_rejected_name_that_is_deleted_is_forgotten(store: Woken) -> None:
    store.put(OUTSIDE)
    store.delete("20.0.0.2")
    assert store.clusters["cluster2"].shelf(Kind.IP).offered == 0


def test_a_kind_is_synced_once_its_list_is_complete(store: Woken) -> None:
    assert not store.synced("cluster2", [Kind.IP])
    store.listed("cluster2", Kind.IP, now=1.0)
    assert store.synced("cluster2", [Kind.IP])
    assert not store.synced("cluster2", [Kind.IP, Kind.NODE])


def test_a_cluster_that_leaves_takes_everything_with_it(store: Woken) -> None:
    store.put(POD)
    store.take(10)
    store.drain("cluster2")
    assert store.take(10) == {("cluster2", Kind.IP): {"20.0.0.1"}}
    assert store.record("cluster2", Kind.IP, "20.0.0.1") is None
    assert not store.clusters


def test_another_id_means_that_all_is_forgotten(store: Woken) -> None:
    store.put(POD)
    store.listed("cluster2", Kind.IP, now=1.0)
    store.accept("cluster2", Scope("cluster2", 3, identity_range(3)))
    assert store.record("cluster2", Kind.IP, "20.0.0.1") is None
    assert not store.synced("cluster2", [Kind.IP])


def limited(most: int) -> Store:
    store = Store(lambda: None, allowance=lambda cluster: Allowance(quotas={Kind.IP: Quota(10, most)}))
    store.accept("cluster2", SCOPE)
    return store


def test_bytes_over_the_quota_are_refused_and_counted_until_there_is_room() -> None:
    value = next(iter(POD.values())).encode()
    store = limited(len(value))
    store.apply("cluster2", Kind.IP, Changes({"20.0.0.1": value}), now=1.0)
    other = next(iter(records.ip("cluster2", "20.0.0.2", "172.18.2.11", 131073).values())).encode()
    store.apply("cluster2", Kind.IP, Changes({"20.0.0.2": other}), now=1.0)
    shelf = store.clusters["cluster2"].shelf(Kind.IP)
    assert (list(shelf.records), dict(shelf.reasons()), shelf.over_quota) == (["20.0.0.1"], {"over-quota": 1}, 1)
    store.apply("cluster2", Kind.IP, Changes({}, {"20.0.0.1"}), now=1.0)
    store.apply("cluster2", Kind.IP, Changes({"20.0.0.2": other}), now=1.0)
    assert (list(shelf.records), shelf.over_quota, shelf.weight) == (["20.0.0.2"], 0, len(other))


def test_many_rejections_keep_their_reason_but_not_all_their_story(store: Woken) -> None:
    puts = {f"20.0.{n >> 8}.{n & 255}": b"x" * 100 for n in range(2000)}
    store.apply("cluster2", Kind.IP, Changes(puts), now=1.0)
    shelf = store.clusters["cluster2"].shelf(Kind.IP)
    assert shelf.reasons() == {"not-json": 2000}
    assert sum(bool(rejection.detail) for rejection in shelf.rejected.values()) == 1000


def test_who_has_few_changes_is_not_kept_waiting_by_who_has_many() -> None:
    store = Store(lambda: None)
    for cluster, number, count in (("cluster2", 2, 200), ("cluster3", 3, 1)):
        store.accept(cluster, Scope(cluster, number, identity_range(number)))
        for host in range(count):
            address = f"{number}0.0.0.{host}"
            ((_, value),) = records.ip(cluster, address, "", 1).items()
            store.apply(cluster, Kind.IP, Changes({address: value.encode()}), now=0.0)
    taken = store.take(50)
    assert taken["cluster3", Kind.IP] == {"30.0.0.0"}
    assert len(taken["cluster2", Kind.IP]) == 49
    assert len(store.take(50)["cluster2", Kind.IP]) == 50


NAMES = ("20.0.0.1", "20.0.0.2", "fd00::1", "20.0.0.0/24")
ADDRESSES = NAMES[:3]
Fields = dict[str, object]
GOOD: st.SearchStrategy[Fields] = st.fixed_dictionaries(
    {},
    optional={
        "HostIP": st.sampled_from(("", "172.18.2.11", "fd00::9")),
        "K8sNamespace": st.just("ns"),
        "K8sServiceAccount": st.just("a"),
        "K8sPodName": st.just("p"),
    },
)
BAD: st.SearchStrategy[Fields] = st.sampled_from(
    ({"HostIP": "node"}, {"ID": 65537}, {"Mask": "////AA=="}, {"IP": "FD00::1"}, {"ID": "x"})
)


def values(names: st.SearchStrategy[str], more: st.SearchStrategy[Fields]) -> st.SearchStrategy[dict[str, bytes]]:
    return st.dictionaries(names, more).map(
        lambda said: {name: json.dumps({"IP": name, "ID": 131073, **fields}).encode() for name, fields in said.items()}
    )


@given(st.lists(values(st.sampled_from(ADDRESSES), GOOD) | values(st.sampled_from((*NAMES, "::1.2.3.4")), GOOD | BAD)))
def test_many_addresses_at_once_are_taken_as_one_after_the_other(answers: list[dict[str, bytes]]) -> None:
    scope = Scope("cluster2", 2, identity_range(2))
    at_once, one_by_one = Shelf(), Shelf()
    for puts in answers:
        changed = at_once.put_all(Kind.IP, puts, scope, 0.0, bytes_max=300)
        expected = [n for n, value in puts.items() if one_by_one.put(Kind.IP, n, value, scope, 0.0, bytes_max=300)]
        assert changed == expected
        assert at_once == one_by_one
