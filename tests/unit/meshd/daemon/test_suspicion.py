"""What a remote cluster says and is not believed: why, and that it takes effect when the reason goes away."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from identity.numbering import identity_range
from meshd.daemon.allowance import Allowance
from meshd.daemon.kernel import MapShape, describe_entry
from meshd.daemon.members import Members
from meshd.daemon.mesh import Mesh
from meshd.daemon.podtarget import PodShape
from meshd.daemon.restoration import restore
from meshd.daemon.store import Store
from meshd.daemon.watch import Changes
from meshd.reconcile.delta import Delta
from tests.support import records
from wire.codec import Scope
from wire.keys import LOCAL_KINDS, SHARED_KINDS, Kind, prefix


class Told:
    """Node n1 of cluster1 with PodCIDR 10.0.0.0/24, and whatever the others say."""

    def __init__(self) -> None:
        self.allowed: dict[str, Allowance] = {}
        self.store = Store(lambda: None)
        self.members = Members("cluster1", 1, max_clusters=255)
        self.maps = Delta(MapShape())
        self.mesh = Mesh(
            self.store,
            self.members,
            node="n1",
            maps=self.maps,
            pods=Delta(PodShape()),
            allowance=lambda cluster: self.allowed.get(cluster, Allowance()),
        )
        for number in (1, 2, 3):
            name = f"cluster{number}"
            self.members.join(name, number)
            self.store.accept(name, Scope(name, number, identity_range(number)))
        for kind in (*SHARED_KINDS, *LOCAL_KINDS):
            self.store.listed("cluster1", kind, now=0.0)
        self.node(1, "n1", "172.18.1.11", "10.0.0.0/24")

    def say(self, number: int, kind: Kind, built: records.Records) -> None:
        start = prefix(kind, f"cluster{number}")
        puts = {key.removeprefix(start): value.encode() for key, value in built.items()}
        self.store.apply(f"cluster{number}", kind, Changes(puts), now=0.0)
        self.refresh()

    def unsay(self, number: int, kind: Kind, name: str) -> None:
        self.store.apply(f"cluster{number}", kind, Changes({}, {name}), now=0.0)
        self.refresh()

    def node(self, number: int, name: str, address: str, cidr: str) -> None:
        self.say(number, Kind.NODE, records.node(f"cluster{number}", number, name, address, cidr))

    def ip(self, number: int, address: str, host: str) -> None:
        self.say(number, Kind.IP, records.ip(f"cluster{number}", address, host, (number << 16) + 1))

    def service(self, number: int, name: str, *backends: str) -> None:
        self.say(number, Kind.SERVICE, records.service(f"cluster{number}", number, name, *backends))

    def refresh(self) -> None:
        while self.mesh.refresh(now=5.0):
            pass

    def allow(self, cluster: str, allowance: Allowance) -> None:
        self.allowed[cluster] = allowance
        self.mesh.suspicion.reconsider(cluster)
        self.refresh()

    def held(self) -> list[str]:
        items = self.mesh.suspicion.quarantine.items()
        return sorted(f"{cluster} {kind} {name}: {held.reason}" for cluster, kind, name, held in items)

    def lines(self, map: str) -> list[str]:
        return sorted(describe_entry(map, *item).split()[0] for item in self.maps.desired[map].items())

    def backends(self) -> set[str]:
        frontends = restore(self.maps.desired, max_clusters=255).services.frontends
        return {str(backend[0]) for backends in frontends.values() for backend in backends}


def test_nothing_that_overlaps_ours_is_believed_however_wide_or_narrow() -> None:
    told = Told()
    told.node(2, "all", "172.18.2.11", "0.0.0.0/0")
    told.node(2, "wide", "172.18.2.11", "10.0.0.0/8")
    told.node(2, "narrow", "172.18.2.11", "10.0.0.128/25")
    told.node(2, "loop", "172.18.2.11", "127.1.0.0/16")
    told.node(2, "ours", "172.18.1.11", "20.0.0.0/24")
    told.ip(2, "10.0.0.77", "172.18.2.11")
    told.ip(2, "172.18.1.11", "172.18.2.11")
    told.ip(2, "20.0.0.1", "172.18.1.11")
    assert told.held() == [
        "cluster2 ip 10.0.0.77: own-address",
        "cluster2 ip 172.18.1.11: own-address",
        "cluster2 ip 20.0.0.1: own-node",
        "cluster2 nodes all: default-route",
        "cluster2 nodes loop: not-routable",
        "cluster2 nodes narrow: own-address",
        "cluster2 nodes ours: own-node",
        "cluster2 nodes wide: own-address",
    ]
    assert told.lines("md_cidrs") == []
    told.unsay(1, Kind.NODE, "n1")
    assert told.held() == ["cluster2 nodes all: default-route", "cluster2 nodes loop: not-routable"]
    assert told.lines("md_cidrs") == ["10.0.0.0/8", "10.0.0.128/25", "20.0.0.0/24"]
    told.node(1, "n1", "172.18.1.11", "10.0.0.0/24")
    assert len(told.held()) == 8
    assert told.lines("md_cidrs") == told.lines("md_ipcache") == []


def test_a_pod_of_ours_outside_our_cidrs_is_ours_too() -> None:
    told = Told()
    told.node(2, "n1", "172.18.2.11", "20.0.0.0/24")
    told.ip(2, "20.0.0.5", "172.18.2.11")
    told.ip(1, "20.0.0.5", "172.18.1.11")
    assert told.held() == ["cluster2 ip 20.0.0.5: own-address", "cluster2 nodes n1: own-address"]
    told.unsay(1, Kind.IP, "20.0.0.5")
    assert told.held() == []
    assert told.lines("md_cidrs") == ["20.0.0.0/24"]


def test_only_allowed_cidrs_and_namespaces_count() -> None:
    told = Told()
    told.say(1, Kind.LOCAL_SERVICE, records.local_service("cluster1", "shop/web", "30.1.1.1", "10.0.0.1"))
    told.node(2, "n1", "172.18.2.11", "20.0.0.0/24")
    told.node(2, "n2", "172.18.2.12", "21.0.0.0/24")
    told.ip(2, "21.0.0.1", "172.18.2.12")
    told.service(2, "shop/web", "20.0.0.1", "21.0.0.1")
    assert told.backends() == {"10.0.0.1", "20.0.0.1", "21.0.0.1"}
    told.allow("cluster2", Allowance(cidrs=(ipaddress.ip_network("20.0.0.0/16"),)))
    assert told.held() == [
        "cluster2 ip 21.0.0.1: outside-allowed-cidrs",
        "cluster2 nodes n2: outside-allowed-cidrs",
        "cluster2 services shop/web 21.0.0.1: outside-allowed-cidrs",
    ]
    assert (told.backends(), told.lines("md_cidrs")) == ({"10.0.0.1", "20.0.0.1"}, ["20.0.0.0/24"])
    told.allow("cluster2", Allowance(namespaces=frozenset({"bank"})))
    assert told.held() == ["cluster2 services shop/web: outside-allowed-namespaces"]
    assert told.backends() == {"10.0.0.1"}
    told.allow("cluster2", Allowance())
    assert (told.held(), told.backends()) == ([], {"10.0.0.1", "20.0.0.1", "21.0.0.1"})


def test_a_backend_at_our_own_address_is_left_out_of_its_service() -> None:
    told = Told()
    told.say(1, Kind.LOCAL_SERVICE, records.local_service("cluster1", "shop/web", "30.1.1.1", "10.0.0.1"))
    told.service(2, "shop/web", "10.0.0.9", "20.0.0.1")
    assert told.backends() == {"10.0.0.1", "20.0.0.1"}
    assert told.held() == ["cluster2 services shop/web 10.0.0.9: own-address"]
    told.ip(1, "20.0.0.1", "172.18.1.11")
    assert told.backends() == {"10.0.0.1"}
    told.service(2, "shop/web", "20.0.0.2")
    assert (told.held(), told.backends()) == ([], {"10.0.0.1", "20.0.0.2"})


def test_of_overlapping_prefixes_of_others_the_lower_cluster_id_is_believed() -> None:
    told = Told()
    told.node(3, "n1", "172.18.3.11", "20.0.0.128/25")
    assert told.lines("md_cidrs") == ["20.0.0.128/25"]
    told.node(2, "n1", "172.18.2.11", "20.0.0.0/24")
    assert told.lines("md_cidrs") == ["20.0.0.0/24"]
    assert {str(p): who for p, who in told.mesh.prefixes.blocked.items()} == {"20.0.0.128/25": ("cluster3", "cluster2")}
    told.unsay(2, Kind.NODE, "n1")
    assert (told.lines("md_cidrs"), told.mesh.prefixes.blocked) == (["20.0.0.128/25"], {})


def test_a_withdrawn_cluster_keeps_its_addresses_and_loses_its_backends() -> None:
    told = Told()
    told.say(1, Kind.LOCAL_SERVICE, records.local_service("cluster1", "shop/web", "30.1.1.1", "10.0.0.1"))
    told.node(2, "n1", "172.18.2.11", "20.0.0.0/24")
    told.ip(2, "20.0.0.1", "172.18.2.11")
    told.service(2, "shop/web", "20.0.0.1")
    told.mesh.withdraw("cluster2")
    told.refresh()
    assert told.backends() == {"10.0.0.1"}
    entries = [describe_entry(m, *item) for m in ("md_ipcache", "md_cidrs") for item in told.maps.desired[m].items()]
    assert sorted(entries) == [
        "20.0.0.0/24 identity=2 tunnel=172.18.2.11 remote=True unreachable=True",
        "20.0.0.1 identity=131073 tunnel=172.18.2.11 remote=True unreachable=True",
    ]
    told.mesh.welcome("cluster2")
    told.refresh()
    assert told.backends() == {"10.0.0.1", "20.0.0.1"}


def test_nothing_stays_of_a_cluster_that_left() -> None:
    told = Told()
    told.service(2, "shop/web", "10.0.0.9")
    told.node(2, "n1", "172.18.2.11", "10.0.0.0/25")
    told.mesh.withdraw("cluster2")
    told.store.drain("cluster2")
    told.members.leave("cluster2")
    told.mesh.leave("cluster2")
    told.refresh()
    assert (told.held(), told.mesh.withdrawn, told.mesh.prefixes.blocked) == ([], set(), {})
    assert told.lines("md_cidrs") == []


def test_an_address_in_a_podcidr_of_a_cluster_that_comes_first_is_not_believed_and_is_when_that_goes() -> None:
    told = Told()
    told.node(2, "n1", "172.18.2.11", "20.0.0.0/24")
    told.node(3, "n1", "172.18.3.11", "40.0.0.0/24")
    told.ip(3, "20.0.0.9", "172.18.3.11")
    told.ip(2, "40.0.0.9", "172.18.2.11")
    assert told.held() == ["cluster3 ip 20.0.0.9: conflict"]
    assert told.lines("md_ipcache") == ["40.0.0.9"], "cluster2 comes before cluster3"
    told.unsay(2, Kind.NODE, "n1")
    assert (told.held(), told.lines("md_ipcache")) == ([], ["20.0.0.9", "40.0.0.9"])
    told.node(2, "n1", "172.18.2.11", "20.0.0.0/16")
    assert told.held() == ["cluster3 ip 20.0.0.9: conflict"]
    told.unsay(3, Kind.IP, "20.0.0.9")
    told.unsay(2, Kind.IP, "40.0.0.9")
    assert (told.held(), len(told.mesh.suspicion.strays)) == ([], 0)


def test_addresses_at_home_are_judged_again_when_their_podcidr_is_taken_over() -> None:
    told = Told()
    told.node(3, "n1", "172.18.3.11", "20.0.0.0/24")
    told.node(3, "n2", "172.18.3.12", "fd00:20::/64")
    for address in ("20.0.0.1", "fd00:20::1"):
        told.ip(3, address, "172.18.3.11")
    assert told.held() == []
    told.node(2, "n1", "172.18.2.11", "20.0.0.0/25")
    told.node(2, "n2", "172.18.2.12", "fd00::/16")
    assert told.held() == ["cluster3 ip 20.0.0.1: conflict", "cluster3 ip fd00:20::1: conflict"]


PLACES = ("20.0.0.0/24", "20.0.0.0/25", "20.0.0.0/16", "20.0.1.0/24", "fd00:20::/64", "fd00:20::/48", "10.0.0.128/25")
PODS_THERE = ("20.0.0.1", "20.0.0.200", "20.0.1.1", "fd00:20::1", "10.0.0.200")
NODE = st.tuples(st.just("node"), st.integers(1, 3), st.sampled_from(("n2", "n3")), st.sampled_from(("", *PLACES)))
POD = st.tuples(st.just("ip"), st.integers(2, 3), st.sampled_from(PODS_THERE), st.booleans())


@given(st.lists(NODE | POD, max_size=25))
def test_in_whatever_order_it_comes_the_same_is_believed(said: list[tuple[str, int, str, str | bool]]) -> None:
    told, afresh = Told(), Told()
    for what, number, name, value in said:
        say(told, what, number, name, value)
    final = {(what, number, name): value for what, number, name, value in said}
    for (what, number, name), value in sorted(final.items()):
        say(afresh, what, number, name, value)
    assert told.held() == afresh.held()
    assert told.maps.desired["md_ipcache"] == afresh.maps.desired["md_ipcache"]
    assert told.lines("md_cidrs") == afresh.lines("md_cidrs")
    assert len(told.mesh.suspicion.strays) == len(afresh.mesh.suspicion.strays)


def say(told: Told, what: str, number: int, name: str, value: str | bool) -> None:
    if not value:
        told.unsay(number, Kind.NODE if what == "node" else Kind.IP, name)
    elif what == "node":
        told.node(number, name, f"172.18.{number}.{name[1:]}", str(value))
    else:
        told.ip(number, name, f"172.18.{number}.11")
