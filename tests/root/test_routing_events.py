"""Ways to nodes follow what happens to a node's devices, addresses, routes and rules, asking only for what an event may
have moved: the same after any history as if everything had been asked.

          node                                   switch
 eth0 172.18.1.11/16, fd00:172::11/64 ── to-node-0 172.18.2.11
 eth1 172.19.1.11/16, fd00:173::11/64 ── to-node-1 172.19.2.11       veth0, veth1: as of pods, they come and go
 lo   10.255.0.1
"""

import random
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from meshd.daemon.knownways import KnownWays
from meshd.daemon.netevents import EVERYTHING, Concern
from meshd.daemon.underlay import open_events
from routing.lookup import Lookup
from routing.plan import Hop
from routing.routes import PROTOCOL
from tests.support.netns import Machine, Namespace, link, machine
from wire.records import IPAddress

pytestmark = pytest.mark.root
STEPS = 60
ADDRESSES = frozenset(
    ip_address(text)
    for text in (
        *(f"172.{net}.{third}.{last}" for net in (18, 19) for third in (2, 3) for last in (11, 12, 200)),
        *(f"192.0.2.{last}" for last in (1, 77, 200)),
        *("fd00:172::12", "fd00:173::12", "fd00:200::1"),
    )
)
STEPS_OF_OTHERS = (
    "ip link set eth0 down",
    "ip link set eth0 up",
    "ip link set eth1 down",
    "ip link set eth1 up",
    "ip link set eth1 mtu 1400",
    "ip link set eth1 mtu 1500",
    "ip addr add 172.18.1.11/16 dev eth0",
    "ip addr del 172.18.1.11/16 dev eth0",
    "ip addr add 172.18.2.200/32 dev eth0",
    "ip addr del 172.18.2.200/32 dev eth0",
    "ip addr add 172.19.1.11/16 dev eth1",
    "ip addr add 172.19.1.12/16 dev eth1",
    "ip addr del 172.19.1.11/16 dev eth1",
    "ip addr add 10.255.0.1/32 dev lo",
    "ip addr del 10.255.0.1/32 dev lo",
    "ip addr add fd00:173::11/64 dev eth1 nodad",
    "ip addr del fd00:173::11/64 dev eth1",
    "ip route replace 192.0.2.0/24 via 172.18.2.11",
    "ip route replace 192.0.2.0/25 via 172.18.2.11 src 10.255.0.1",
    "ip route replace 192.0.2.0/24 nexthop via 172.18.2.11 nexthop via 172.19.2.11",
    "ip route replace 192.0.2.64/26 via 172.19.2.11 metric 50",
    "ip route replace 192.0.2.77 dev eth1",
    "ip route del 192.0.2.0/24",
    "ip route del 192.0.2.0/25",
    "ip route del 192.0.2.77",
    "ip route replace default via 172.19.2.11",
    "ip route replace default via 172.18.2.11 metric 10",
    "ip route del default",
    "ip route replace unreachable 172.19.3.0/24",
    "ip route del 172.19.3.0/24",
    "ip route replace blackhole 172.18.3.0/24",
    "ip route del blackhole 172.18.3.0/24",
    "ip -6 route replace fd00:200::/64 via fd00:172::12",
    "ip -6 route replace default via fd00:173::12",
    "ip -6 route del default",
    "ip route replace 192.0.2.200 via 172.18.2.11 table 77",
    "ip rule add to 192.0.2.0/24 lookup 77 pref 100",
    "ip rule del pref 100",
    "ip route replace 20.0.0.0/24 via 172.18.2.11 proto bird",
    "ip route replace 20.0.1.0/24 proto bird nexthop via 172.18.2.11 nexthop via 172.19.2.11",
    "ip route replace 20.0.0.0/24 via 172.19.2.11 proto bird",
    "ip route del 20.0.0.0/24",
    "ip nexthop replace id 1 via 172.18.2.11 dev eth0",
    "ip nexthop replace id 1 via 172.19.2.11 dev eth1",
    "ip route replace 192.0.2.1 nhid 1",
    "ip nexthop del id 1",
    "ip link add veth0 type veth peer name veth1; ip link set veth0 up",
    "ip link set veth1 up; ip addr add 169.254.7.1/32 dev veth0; ip route replace 10.0.0.9 dev veth0",
    "ip link del veth0",
)


@pytest.fixture
def made() -> Iterator[Machine]:
    with machine() as each:
        yield each


def start(made: Machine) -> Namespace:
    node, switch = made.namespace("node"), made.namespace("switch")
    for number, net in enumerate((18, 19)):
        link(switch, f"to-node-{number}", node, f"eth{number}")
        switch.ip("addr", "add", f"172.{net}.2.11/16", "dev", f"to-node-{number}")
        node.ip("addr", "add", f"172.{net}.1.11/16", "dev", f"eth{number}")
        node.ip("addr", "add", f"fd00:17{2 + number}::11/64", "dev", f"eth{number}", "nodad")
    return node


def drained(events: socket.socket) -> Concern:
    concern = Concern()
    while True:
        try:
            concern.take(events.recv(1 << 16), protocol=PROTOCOL)
        except BlockingIOError:
            return concern


@pytest.mark.parametrize("seed", range(3))
def test_asking_for_what_may_have_moved_is_as_good_as_asking_for_all(made: Machine, seed: int) -> None:
    node, walk, known = start(made), random.Random(seed), KnownWays()
    events = node.call(open_events)
    try:
        node.call(lambda: known.follow(ADDRESSES, EVERYTHING))
        for _ in range(STEPS):
            several = [walk.choice(STEPS_OF_OTHERS) for _ in range(walk.choice((1, 1, 1, 3)))]
            node.run("sh", "-c", f"({'; '.join(several)}) 2>/dev/null; true")
            concern = drained(events)
            addresses = ADDRESSES if walk.random() < 0.8 else frozenset(walk.sample(sorted(ADDRESSES, key=str), 12))
            node.call(lambda a=addresses, c=concern: known.follow(a, c))  # type: ignore[misc]
            fresh = KnownWays()
            node.call(lambda a=addresses, f=fresh: f.follow(a, EVERYTHING))  # type: ignore[misc]
            assert (known.hops, known.learned, known.devices) == (fresh.hops, fresh.learned, fresh.devices), several
    finally:
        events.close()


def test_what_does_not_move_is_not_asked_for(made: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    node, known, asked = start(made), KnownWays(), []
    true = Lookup.hops

    def hops(self: Lookup, addresses: list[IPAddress]) -> dict[IPAddress, Hop | None]:
        asked.append(sorted(map(str, addresses)))
        return true(self, addresses)

    monkeypatch.setattr(Lookup, "hops", hops)
    events = node.call(open_events)

    def after(command: str) -> list[str]:
        node.run("sh", "-c", command)
        node.call(lambda: known.follow(ADDRESSES, drained(events)))
        return asked.pop()

    try:
        assert len(after("true")) == len(ADDRESSES), "nothing is known yet"
        before = known.hops
        pod = "ip link add veth0 type veth peer name veth1; ip link set veth0 up; ip link set veth1 up"
        assert after(f"{pod}; ip route add 10.0.0.9 dev veth0; ip link del veth0") == []
        assert known.hops is before
        assert after("ip route add 192.0.2.64/26 via 172.18.2.11") == ["192.0.2.77"]
        assert after("ip rule add to 198.51.100.1 lookup 7") == sorted(map(str, ADDRESSES))
        over_eth1 = {str(address) for address in ADDRESSES if str(address).startswith(("172.19.", "fd00:173:"))}
        assert set(after("ip link set eth1 mtu 1400")) == over_eth1
    finally:
        events.close()
