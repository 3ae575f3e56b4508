"""The node map: what carries packets to a node, when the kernel was asked and when not."""

from dataclasses import replace
from ipaddress import ip_address

from meshd.daemon.kernel import describe_entry
from meshd.daemon.nodes import MAX_TUNNELS, Needs, Nodes
from meshd.daemon.wishes import Wishes
from routing.plan import End, Hop, Mode, Settings, Surroundings
from routing.tunnel import ANNOTATION, CILIUM, DEFAULT, Encapsulation, Tunnel
from tests.support.surroundings import answers
from wire.records import CIDR, Node, NodeAddress

RANKS = {"cluster1": (0,), "cluster2": (1, 2), "cluster3": (1, 3)}
HERE = Settings("cluster1", "n1")


def record(cluster: str, name: str, address: str, cidr: str = "20.0.0.0/24", tunnel: str | None = "vxlan:8473") -> Node:
    host, _, length = cidr.partition("/")
    mask = {"24": "////AA==", "16": "//8AAA=="}[length]
    return Node(
        name=name,
        cluster=cluster,
        cluster_id=int(cluster[-1]),
        addresses=[NodeAddress("InternalIP", address)],
        ipv4_cidr=CIDR(host, mask),
        annotations={ANNOTATION: tunnel} if tunnel else None,
    )


class World:
    def __init__(self, settings: Settings = HERE) -> None:
        self.nodes = Nodes(settings, lambda cluster: RANKS[cluster])
        self.entries: dict[bytes, bytes] = {}

    def say(self, *records: Node) -> None:
        for node in records:
            self.take(self.nodes.update(node.cluster, [node.name], {node.name: node}.get))

    def take(self, wishes: Wishes) -> None:
        for (_, key), value in wishes.items():
            if value is None:
                self.entries.pop(key, None)
            else:
                self.entries[key] = value

    def ask(self) -> None:
        self.surround(answers(self.nodes.needs()))

    def surround(self, surroundings: Surroundings) -> None:
        self.nodes.surround(surroundings)
        self.take(self.nodes.replan())

    def configure(self, settings: Settings) -> None:
        self.nodes.configure(settings)
        self.take(self.nodes.replan())

    def seen(self) -> list[str]:
        return sorted(describe_entry("md_node", *item) for item in self.entries.items())


def test_nothing_is_wished_before_the_kernel_was_asked() -> None:
    """After a restart the entry that stands stays: it is right, or will be made so."""
    world = World()
    world.say(record("cluster1", "n1", "172.18.1.11"), record("cluster2", "n1", "172.18.2.11"))
    assert [line.split()[0] for line in world.seen()] == ["172.18.1.11"]
    assert world.nodes.waiting == {"cluster2/n1"}
    world.ask()
    assert not world.nodes.waiting
    assert world.seen()[1].startswith(
        "172.18.2.11 cluster_id=2 remote=True here=False tunnel_ifindex=9 tunnel_mtu=1450"
    )


def test_what_the_kernel_has_to_be_asked_follows_the_nodes() -> None:
    world = World(replace(HERE, mode=Mode.HYBRID))
    one, two = record("cluster2", "n1", "172.18.2.11"), record("cluster3", "n1", "172.18.3.11", tunnel=None)
    world.say(one, two, record("cluster1", "n2", "172.18.1.12"))
    hops = frozenset(map(ip_address, ("172.18.2.11", "172.18.3.11")))
    assert world.nodes.needs() == Needs(frozenset({DEFAULT, CILIUM}), frozenset(), hops)
    world.take(world.nodes.update("cluster3", ["n1"], lambda name: None))
    assert world.nodes.needs() == Needs(frozenset({DEFAULT}), frozenset(), frozenset({ip_address("172.18.2.11")}))
    world.configure(HERE)
    assert world.nodes.needs() == Needs(frozenset({DEFAULT}))


def test_nobody_makes_us_have_more_devices_than_a_few() -> None:
    world = World()
    world.say(*(record("cluster2", f"n{n}", f"172.18.2.{n}", f"20.0.{n}.0/24", f"vxlan:{9000 + n}") for n in range(20)))
    world.say(*(record("cluster3", f"n{n}", f"172.18.3.{n}", f"40.0.{n}.0/24") for n in range(3)))
    needs = world.nodes.needs()
    assert (len(needs.tunnels), len(needs.refused)) == (MAX_TUNNELS, 20 + 1 - MAX_TUNNELS)
    assert DEFAULT in needs.tunnels, "most nodes have it"


def test_a_peer_goes_direct_and_back_by_one_entry() -> None:
    world = World()
    world.say(record("cluster2", "n1", "172.18.2.11"))
    world.ask()
    by_tunnel = world.seen()
    world.configure(replace(HERE, peers={"cluster2": Mode.HYBRID}))
    assert world.seen() == by_tunnel, "until the kernel was asked"
    world.ask()
    (line,) = world.seen()
    assert "direct4=Direct(ifindex=2, hop=IPv4Address('172.18.2.11'), mtu=1500)" in line
    assert world.nodes.direct("cluster2") == {"n1"}
    turn = world.nodes.direct_turn("cluster2")
    gone = Surroundings({ip_address("172.18.2.11"): None}, world.nodes.surroundings.ends)
    world.surround(gone)
    assert world.seen() == by_tunnel, "the link went"
    assert not world.nodes.direct("cluster2")
    assert world.nodes.direct_turn("cluster2") != turn
    world.configure(HERE)
    world.ask()
    assert world.seen() == by_tunnel


def test_a_device_that_cannot_be_had_leaves_the_node_unreachable() -> None:
    world = World()
    geneve = Tunnel(Encapsulation.GENEVE, 6081)
    world.say(record("cluster2", "n1", "172.18.2.11", tunnel=str(geneve)))
    world.surround(Surroundings(ends={geneve: "this kernel has no geneve"}))
    assert "tunnel_ifindex=0" in world.seen()[0]
    world.surround(Surroundings(ends={geneve: End(12, "md_geneve", 9000)}))
    assert "tunnel_ifindex=12 tunnel_mtu=8950" in world.seen()[0]


def test_a_node_address_has_one_owner_and_ours_is_ours() -> None:
    world = World()
    world.say(record("cluster3", "n1", "172.18.2.11"), record("cluster2", "n1", "172.18.2.11"))
    world.say(record("cluster2", "thief", "172.18.1.11"), record("cluster1", "n1", "172.18.1.11", "10.0.0.0/24"))
    world.ask()
    assert [line.split()[:4] for line in world.seen()] == [
        ["172.18.1.11", "cluster_id=1", "remote=False", "here=True"],
        ["172.18.2.11", "cluster_id=2", "remote=True", "here=False"],
    ]
    assert {str(address): claimants for address, claimants in world.nodes.conflicts()} == {
        "172.18.1.11": ["cluster1/n1", "cluster2/thief"],
        "172.18.2.11": ["cluster2/n1", "cluster3/n1"],
    }


def test_only_nodes_whose_surroundings_changed_are_planned_again() -> None:
    world = World(replace(HERE, mode=Mode.HYBRID))
    world.say(*(record("cluster2", f"n{n}", f"172.18.2.{n}", f"20.0.{n}.0/24") for n in range(1, 20)))
    world.ask()
    world.nodes.moved.clear()
    before = world.nodes.surroundings
    hop = Hop(2, "eth0", 1500, None, ip_address("172.18.0.1"))
    world.surround(replace(before, hops={**before.hops, ip_address("172.18.2.7"): hop}))
    assert world.nodes.moved == {"cluster2/n7"}


def test_what_is_about_many_nodes_is_taken_in_pieces() -> None:
    """Those that a router spoke of first; what is said of a node meanwhile is planned at once, and not again."""
    world = World()
    world.say(*(record("cluster2", f"n{n}", f"172.18.2.{n}", f"20.0.{n}.0/24") for n in range(1, 20)))
    world.ask()
    before = world.seen()
    world.nodes.moved.clear()
    world.nodes.surround(Surroundings(ends={DEFAULT: End(9, "md_vxlan", 1400)}))
    assert world.nodes.is_due
    assert not world.nodes.moved
    world.nodes.told([ip_address("172.18.2.19"), ip_address("172.18.99.99")])
    world.take(world.nodes.replan(3))
    assert len(world.nodes.moved) == 3
    assert "cluster2/n19" in world.nodes.moved
    assert len(set(world.seen()) & set(before)) == 16
    world.say(*(record("cluster2", "n9", "172.18.2.9", "20.0.9.0/24") for _ in range(2)))
    while world.nodes.is_due:
        before = world.seen()
        world.take(world.nodes.replan(3))
        assert 1 <= len(set(world.seen()) - set(before)) <= 3
    assert all("tunnel_mtu=1350" in line for line in world.seen())
