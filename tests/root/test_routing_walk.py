"""Any history of nodes, modes and of what others do to the kernel ends as if only its end had been: the same tunnel
devices, routes, rules, neighbours and map entries on a node that has walked and on a fresh one.

      walked, fresh
eth0 172.18.1.11/16 ── switch           each in namespaces of its own
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

import pytest

from datapath.loader import Loaded, LoadSettings, ensure_loaded
from meshd.daemon.kernel import describe_entry
from meshd.daemon.nodes import Nodes
from meshd.daemon.prefixes import Prefixes
from meshd.daemon.routetarget import RouteShape, RouteTarget
from meshd.daemon.survey import Survey
from meshd.daemon.underlay import underlay_mtu
from meshd.daemon.wantedroutes import BOTH, WantedRoutes
from meshd.daemon.wishes import Wishes
from meshd.reconcile.execution import execute
from meshd.reconcile.loop import Reconciler
from routing.exports import Exports
from routing.plan import Mode, Settings
from routing.routes import HostRoutes
from routing.tunnel import ANNOTATION, DEFAULT
from tests.support.netns import Machine, Namespace, link, machine
from wire.records import CIDR, Node, NodeAddress

pytestmark = pytest.mark.root
STEPS = 30
TUNNELS = ("vxlan:8473", "vxlan:8472", "vxlan:4790", "")
RANK = lambda claimant: (int(claimant.partition("/")[0].removeprefix("cluster")),)  # noqa: E731
OWN = Node(
    name="n1",
    cluster="cluster1",
    cluster_id=1,
    addresses=[NodeAddress("InternalIP", "172.18.1.11")],
    ipv4_cidr=CIDR.of(ip_network("10.0.0.0/24")),
)


@dataclass
class World:
    """All that has to come out the same: what clusters say, how they are reached, what the host has."""

    nodes: dict[tuple[str, str], Node] = field(default_factory=dict)
    mode: Mode = Mode.TUNNEL
    mtu: int = 1500
    foreign: set[str] = field(default_factory=set)

    def step(self, walk: random.Random) -> None:
        action = walk.random()
        if action < 0.6:
            key = (f"cluster{walk.randint(2, 3)}", f"n{walk.randint(1, 3)}")
            self.nodes.pop(key, None)
            if walk.random() < 0.75:
                self.nodes[key] = _record(*key, walk)
        elif action < 0.75:
            self.mode = walk.choice(list(Mode))
        elif action < 0.85:
            self.mtu = walk.choice([1280, 1400, 1500, 9000])
        else:
            self.foreign ^= {f"20.0.{walk.randint(0, 3)}.0/24"}


def _record(cluster: str, name: str, walk: random.Random) -> Node:
    tunnel = walk.choice(TUNNELS)
    return Node(
        name=name,
        cluster=cluster,
        cluster_id=int(cluster[-1]),
        addresses=[NodeAddress("InternalIP", f"172.18.{walk.randint(2, 3)}.{walk.randint(11, 14)}")],
        ipv4_cidr=CIDR.of(ip_network(f"20.0.{walk.randint(0, 3)}.0/24")),
        annotations={ANNOTATION: tunnel} if tunnel else None,
    )


class Walker:
    """The daemon's planning on the kernel of a namespace of its own."""

    def __init__(self, made: Machine, name: str, loaded: Loaded) -> None:
        self.namespace, switch = made.namespace(name), made.namespace(f"{name}-switch")
        link(switch, "to-node", self.namespace, "eth0")
        self.namespace.ip("addr", "add", "172.18.1.11/16", "dev", "eth0")
        self._programs = loaded.programs
        self._foreign: set[str] = set()
        self.target = RouteTarget(HostRoutes(), Exports())
        self.restart()

    def restart(self) -> None:
        """A new process: it has heard nothing yet."""
        self.entries: dict[tuple[str, bytes], bytes] = {}
        self._known: dict[tuple[str, str], Node] = {}
        self._nodes = Nodes(Settings("cluster1", "n1"), RANK)
        self._prefixes = Prefixes("cluster1", RANK, lambda record: None)
        self._wanted = WantedRoutes(self._nodes, self._prefixes)
        self._routes = Reconciler("routes", self.target, RouteShape())
        self._survey = Survey(DEFAULT, "meshd:walk", self._programs, lambda: underlay_mtu("eth0"))
        for map in BOTH:
            self._routes.delta.restore(map, self.namespace.call(lambda m=map: self.target.dump(m)))  # type: ignore[misc]
        self._say({("cluster1", "n1"): OWN})

    def follow(self, world: World, *, prune: bool = False) -> None:
        self.namespace.ip("link", "set", "eth0", "mtu", str(world.mtu))
        for prefix in self._foreign ^ world.foreign:
            self.namespace.ip("route", "add" if prefix in world.foreign else "del", prefix, "via", "172.18.9.9")
        self._foreign = set(world.foreign)
        self._say({("cluster1", "n1"): OWN, **world.nodes})
        self._nodes.configure(Settings("cluster1", "n1", world.mode))
        needs = self._nodes.needs()
        self._nodes.surround(self.namespace.call(lambda: self._survey.ask(needs)))
        self._take(self._nodes.replan())
        for (map, key), way in self._wanted.update().items():
            self._routes.delta.want(map, key, way)
        if prune:
            for map in BOTH:
                self._routes.delta.prune(map, lambda key, value: True)
            self.namespace.call(lambda: self._survey.tidy(needs))
        standing = self.namespace.call(self.target.standing)
        for map, routes in standing.items():
            realised = self._routes.delta.realised[map]
            self._routes.delta.doubt(map, [key for key, way in realised.items() if routes.get(key) != way])
        self._settle()

    def _say(self, nodes: dict[tuple[str, str], Node]) -> None:
        for cluster, name in {*self._known, *nodes}:
            node = nodes.get((cluster, name))
            if self._known.get((cluster, name)) != node:
                lookup = lambda _, n=node: n  # noqa: E731
                self._prefixes.update_nodes(cluster, [name], lookup)
                self._take(self._nodes.update(cluster, [name], lookup))
        self._known = dict(nodes)

    def _take(self, wishes: Wishes) -> None:
        for item, value in wishes.items():
            if value is None:
                self.entries.pop(item, None)
            else:
                self.entries[item] = value

    def _settle(self) -> None:
        delta = self._routes.delta
        if (round := delta.plan()) is not None:
            shape = self._routes.shape
            done = self.namespace.call(lambda: execute(round, self.target, shape, delta.realised, delta.possible))
            self._routes.record(done, 0.0)
        assert not self._routes.retries.failures, self._routes.retries.failures

    def text(self) -> str:
        """What stands, with names for numbers of devices."""
        names = {line.split(":")[0]: line.split()[1].split("@")[0].rstrip(":") for line in self._ip("-o", "link")}
        entries = [describe_entry(map, key, value) for (map, key), value in self.entries.items()]
        entries = [re.sub(r"ifindex=(\d+)", lambda match: names.get(match[1], match[1]), text) for text in entries]
        tunnels = [line.split(": ", 1)[1] for line in self._ip("-o", "-d", "link") if ": md_" in line]
        shown = sorted(re.sub(r"\S*:\S*:\S*", "", line) for line in tunnels)  # without MACs, and so without the alias
        aliases = sorted(line.strip() for line in self._ip("link") if "alias" in line)
        routes = self._ip("route", "show", "table", "all", "proto", "109")
        rules = [line for line in self._ip("rule") if "109" in line]
        neighbours = self._ip("neigh", "show", "proto", "109")
        return "\n".join([*shown, *aliases, *sorted(routes), *rules, *neighbours, *sorted(entries)])

    def _ip(self, *words: str) -> list[str]:
        return self.namespace.ip(*words).splitlines()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, Loaded]]:
    with machine() as each:
        bpffs: Path = each.bpffs(tmp_path_factory.mktemp("walk") / "bpf")
        yield each, ensure_loaded(LoadSettings(bpffs, "walk", each.cgroup("walk")))


def hurt(namespace: Namespace, walk: random.Random) -> None:
    """What others do to a node."""
    command = walk.choice(
        [
            "ip link del md_vxlan",
            "ip link set md_vxlan down",
            "ip route flush table main proto 109",
            "ip rule del pref 32109",
            "ip route flush table 110",
            "ip link set eth0 down; ip link set eth0 up",
        ]
    )
    namespace.run("sh", "-c", f"({command}) 2>/dev/null; true")


@pytest.mark.parametrize("seed", range(3))
def test_a_walk_ends_as_a_fresh_start(made: tuple[Machine, Loaded], seed: int) -> None:
    machine, loaded = made
    walk, world = random.Random(seed), World()
    walked = Walker(machine, f"walked{seed}", loaded)
    for _ in range(STEPS):
        world.step(walk)
        if walk.random() < 0.15:
            hurt(walked.namespace, walk)
            walked._foreign = {line.split()[0] for line in walked._ip("route") if "via 172.18.9.9" in line}
        if walk.random() < 0.1:
            walked.restart()
        walked.follow(world)
    walked.restart()
    walked.follow(world, prune=True)
    fresh = Walker(machine, f"fresh{seed}", loaded)
    fresh.follow(world, prune=True)
    assert walked.text().splitlines() == fresh.text().splitlines()
