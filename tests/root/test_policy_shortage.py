"""Policy maps of the real kernel without room, filled by the daemon's own rounds: what is denied never passes."""

from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from datapath.entries import Entry, ipcache_entry
from datapath.layout import DropReason
from datapath.policing import policy_entry
from datapath.policylayout import Iface
from tests.support.desk import FAR, FRIEND, POD, Desk
from tests.support.policed import FIRST_IFINDEX, PORTS, TUNNEL, Bench, bench
from tests.support.testrun import frame
from wire.labels import CLUSTER_LABEL

pytestmark = pytest.mark.root

ROOM = 12
ADDRESSES = {POD: "10.0.0.1", FRIEND: "10.0.0.2", FAR: "20.0.0.1"}
FOE = {"matchLabels": {"app": "foe", CLUSTER_LABEL: "cluster2"}}
RULES = {
    "ingress": [{"fromEntities": ["all"]}],
    "ingressDeny": [
        {"fromEndpoints": [FOE], "toPorts": [{"ports": [{"port": "80", "endPort": 95, "protocol": "TCP"}]}]}
    ],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("shortage"), sizes={"md_policy": ROOM}) as each:
        for identity, address in ADDRESSES.items():
            remote = identity == FAR
            tunnel = TUNNEL if remote else None
            each.write(ipcache_entry(ip_address(address), identity=identity, tunnel=tunnel, remote=remote))
        each.write(Entry("md_iface", FIRST_IFINDEX.to_bytes(4, "little"), bytes(Iface(POD))))
        yield each


def desk_on(made: Bench, *, room: int) -> Desk:
    """The maps hold as many entries of somebody else that so much room is left."""
    for name in ("md_policy", "md_subject", "md_ct4"):
        made.maps.delete(name, list(made.maps.dump(name)))
    fill(made, ROOM - room)
    desk = Desk(maps=made.maps)
    desk.identity(POD, "pod")
    desk.identity(FRIEND, "friend")
    desk.identity(FAR, "foe")
    desk.policing.set_here({POD})
    for cluster in ("cluster1", "cluster2"):
        desk.sync(cluster)
    return desk


def fill(made: Bench, count: int) -> None:
    others = [policy_entry(9 << 16, 0, n + 1, 0, 0, 0, allowed=True) for n in range(count)]
    for entry in others:
        made.maps.upsert(entry.map, {entry.key: entry.value})


def passes(made: Bench, sender: int, port: int = 80) -> bool:
    packet = frame(ADDRESSES[sender], ADDRESSES[POD], "TCP", port, source_port=next(PORTS))
    return made.run("policy_in", packet, FIRST_IFINDEX)


@pytest.mark.parametrize("room", range(4))
def test_who_is_denied_never_passes_however_little_room_there_is(made: Bench, room: int) -> None:
    desk = desk_on(made, room=room)
    desk.rules(RULES)
    desk.work()
    assert not any(passes(made, FAR, port) for port in (80, 88, 95))
    fits = {(fact["peer"], fact["allowed"]) for fact in desk.held("md_policy")} >= {(FAR, False)}
    assert passes(made, FRIEND) is (fits and not desk.policing.shut)
    before = made.maps.drops()[DropReason.POLICY_SHUT]
    passes(made, FRIEND)
    assert (made.maps.drops()[DropReason.POLICY_SHUT] > before) is bool(desk.policing.shut)


def test_room_opens_it_and_a_restart_in_between_does_not(made: Bench) -> None:
    desk = desk_on(made, room=1)
    desk.rules(RULES)
    desk.work()
    assert desk.policing.shut
    assert not passes(made, FRIEND)
    again = Desk(maps=made.maps)
    for name in ("md_policy", "md_subject", "md_outside"):
        again.delta.restore(name, made.maps.dump(name))
    again.policing.restore(made.maps.dump("md_outside"), made.maps.dump("md_subject"))
    for number, app in ((POD, "pod"), (FRIEND, "friend"), (FAR, "foe")):
        again.identity(number, app)
    again.rules(RULES)
    again.policing.set_here({POD})
    again.sync("cluster1")
    again.step()
    assert not passes(made, FRIEND), "nothing is known of the other cluster yet"
    again.sync("cluster2")
    again.work()  # removes the stranger's entries: nobody speaks of them any more
    again.again()
    assert not again.policing.shut
    assert passes(made, FRIEND)
    assert not passes(made, FAR)


def test_an_allowance_without_room_closes(made: Bench) -> None:
    desk = desk_on(made, room=0)
    desk.rules({"ingress": [{"fromEndpoints": [{"matchLabels": {"app": "friend"}}]}]})
    desk.work()
    assert not passes(made, FRIEND)
    assert not passes(made, FAR)
    made.maps.delete("md_policy", list(made.maps.dump("md_policy")))
    desk.again()
    assert passes(made, FRIEND)
    assert not passes(made, FAR)
