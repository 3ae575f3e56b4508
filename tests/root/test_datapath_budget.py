"""What a packet may cost: look-ups by map, calls of helpers, instructions; counted, not timed.

A packet between known pods pays for nothing that it does not need. Whoever raises a number here takes from every packet
of the mesh what was won before: say in the change what it buys (docs/adr/0018-a-packet-pays-for-what-it-needs.md).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

import pytest

from datapath import entries
from datapath.entries import Direct, Entry
from datapath.policing import subject_entry
from datapath.policylayout import Ct, Ct4Key, Iface
from datapath.words import v4
from tests.support.bytecode import compiled
from tests.support.ebpf import Code
from tests.support.known import marked
from tests.support.netns import machine
from tests.support.testrun import frame

pytestmark = pytest.mark.root

HERE, THERE = IPv4Address("172.18.1.11"), IPv4Address("172.18.2.11")
OURS, LOCAL, THEIRS, WORLD = (IPv4Address(text) for text in ("10.0.0.1", "10.0.0.2", "20.0.0.1", "192.0.2.1"))
NEIGHBOUR = IPv4Address("20.0.0.77")  # of theirs: nobody has heard of it
OURS6, WORLD6 = IPv6Address("fd00:10:1::1"), IPv6Address("2001:db8::1")
POD, TUNNEL, UNDERLAY = 7, 5, 2
IDENTITY, THEIR_IDENTITY = 0x010101, 0x020202
PASS, SENT = -1, 7
PORT, SOURCE_PORT, SYN, ACK = 80, 40000, 0x02, 0x10
KEYED = 0x6B657964  # bpf/tunnel.h
REPLIED, OUTBOUND = 1, 4  # enum ct_flag
ENCAP = {"skb_store_bytes": 1, "skb_set_tunnel_key": 1, "redirect": 1}
DELIVERY = {"skb_store_bytes": 1, "skb_change_type": 1, "redirect_peer": 1}
MAC = bytes(6)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Code]]:
    with machine() as made:
        yield compiled(made.bpffs(tmp_path_factory.mktemp("bpf") / "fs"))


def endpoint(*, policed: bool = False) -> Entry:
    return entries.endpoint_entry(OURS, ifindex=POD, mac=MAC, host_mac=MAC, identity=IDENTITY, policed=policed)


MESH = (
    entries.config_entry(tunnel_ifindex=TUNNEL, underlay_mtu=1500),
    entries.node_entry(HERE, cluster_id=1, remote=False, here=True),
    entries.node_entry(THERE, cluster_id=2, remote=True, tunnel_ifindex=TUNNEL, tunnel_mtu=1450),
    entries.ipcache_entry(OURS, identity=IDENTITY, tunnel=None, remote=False),
    entries.ipcache_entry(LOCAL, identity=IDENTITY, tunnel=None, remote=False),
    entries.ipcache_entry(THEIRS, identity=THEIR_IDENTITY, tunnel=THERE, remote=True),
    endpoint(),
)
USED = Entry("md_used", bytes(4), (1).to_bytes(4, "little"))  # USED_NAT
DIRECT = entries.node_entry(THERE, cluster_id=2, remote=True, direct4=Direct(UNDERLAY, THERE, 1500))


def connection(pod_port: int, peer_port: int) -> Entry:
    """Between our pod, that a policy holds for, and theirs; it is tracked."""
    ends = v4(*OURS.packed), v4(*THEIRS.packed)
    return Entry(
        "md_ct4",
        bytes(Ct4Key(*ends, pod_port, peer_port, POD, 6)),
        bytes(Ct(revision=1, flags=REPLIED | (0 if pod_port == PORT else OUTBOUND))),
    )


POLICED = (
    endpoint(policed=True),
    Entry("md_iface", POD.to_bytes(4, "little"), bytes(Iface(IDENTITY))),
    subject_entry(IDENTITY, revision=1, closed=(0, 1), audit=False),
)


@dataclass(frozen=True)
class Case:
    program: str
    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    lookups: str
    helpers: dict[str, int]
    instructions: int
    verdict: int = SENT
    protocol: str = "TCP"
    more: tuple[Entry, ...] = ()
    marks: tuple[int, ...] = ()
    ifindex: int = POD
    ports: tuple[int, int] = field(default=(SOURCE_PORT, PORT))
    flags: int = ACK


CASES = {
    "to a known pod by the tunnel": Case(
        "from_pod", OURS, THEIRS, "md_known md_ipcache md_used md_endpoint md_node", ENCAP, 290
    ),
    "a datagram to a known pod by the tunnel": Case(
        "from_pod", OURS, THEIRS, "md_known md_ipcache md_used md_endpoint md_node", ENCAP, 280, protocol="UDP"
    ),
    "the same at the tunnel device": Case(
        "to_tunnel", OURS, THEIRS, "", {}, 25, PASS, marks=(0, KEYED), ifindex=TUNNEL
    ),
    "to a known pod directly": Case(
        "from_pod",
        OURS,
        THEIRS,
        "md_known md_ipcache md_used md_endpoint md_node",
        {"skb_store_bytes": 1, "redirect_neigh": 1},
        260,
        more=(DIRECT,),
    ),
    "from the tunnel to a pod": Case(
        "from_tunnel",
        THEIRS,
        OURS,
        "md_ipcache md_node md_endpoint md_used",
        {"skb_get_tunnel_key": 1, **DELIVERY},
        210,
        ifindex=TUNNEL,
    ),
    "from the underlay to a pod": Case(
        "from_network",
        THEIRS,
        OURS,
        "md_known md_endpoint md_ipcache md_used",
        {**DELIVERY, "skb_store_bytes": 2},
        192,  # two to see that it is no ICMP, which may be a router's word about a pod's packet (decision 37)
        ifindex=UNDERLAY,
    ),
    "not ours, on the underlay device": Case("from_network", WORLD, HERE, "md_known", {}, 35, PASS, ifindex=UNDERLAY),
    "not ours, to a pod of this cluster": Case("from_pod", OURS, LOCAL, "md_known", {}, 35, PASS),
    "not ours, to the world": Case("from_pod", OURS, WORLD, "md_known", {}, 35, PASS),
    "not ours, IPv6": Case("from_pod", OURS6, WORLD6, "md_known", {}, 40, PASS),
    "not ours, in a network that the mesh knows": Case(
        "from_pod", OURS, NEIGHBOUR, "md_known md_ipcache md_svc4 md_used md_cidrs md_used", {}, 210, PASS
    ),
    "not ours, delivered by the stack": Case("to_pod", WORLD, OURS, "md_used", {}, 12, PASS),
    "the same where flows were translated": Case("to_pod", WORLD, OURS, "md_used md_known", {}, 42, PASS, more=(USED,)),
    "tracked, at the sender's policy": Case(
        "policy_out",
        OURS,
        THEIRS,
        "md_used md_ct4 md_iface md_subject md_known md_ipcache md_endpoint md_node",
        ENCAP,
        390,
        more=(*POLICED, connection(SOURCE_PORT, PORT)),
    ),
    "an answer, at the sender's policy": Case(
        "policy_out",
        OURS,
        THEIRS,
        "md_used md_ct4 md_known md_ipcache md_endpoint md_node",
        ENCAP,
        380,
        more=(*POLICED, connection(PORT, SOURCE_PORT)),
        ports=(PORT, SOURCE_PORT),
    ),
    "the first answer, whose MSS from_pod has to clamp": Case(
        "policy_out",
        OURS,
        THEIRS,
        "md_used md_ct4",
        {},
        155,
        PASS,
        more=(*POLICED, connection(PORT, SOURCE_PORT)),
        ports=(PORT, SOURCE_PORT),
        flags=SYN | ACK,
    ),
    "tracked, at the receiver's policy": Case(
        "from_tunnel",
        THEIRS,
        OURS,
        "md_ipcache md_node md_endpoint md_ct4 md_subject md_used",
        {"skb_get_tunnel_key": 1, **DELIVERY},
        330,
        more=(*POLICED, connection(PORT, SOURCE_PORT)),
        ifindex=TUNNEL,
    ),
    "an answer, at the receiver's policy": Case(
        "from_tunnel",
        THEIRS,
        OURS,
        "md_ipcache md_node md_endpoint md_ct4 md_used",
        {"skb_get_tunnel_key": 1, **DELIVERY},
        320,
        more=(*POLICED, connection(SOURCE_PORT, PORT)),
        ifindex=TUNNEL,
        ports=(PORT, SOURCE_PORT),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_packet_costs_no_more_than_it_did(programs: dict[str, Code], name: str) -> None:
    case = CASES[name]
    held: dict[str, dict[bytes, bytes]] = {"md_known": marked((*MESH, *case.more))}
    for entry in (*MESH, *case.more):
        held.setdefault(entry.map, {})[entry.key] = entry.value
    packet = frame(
        case.source, case.destination, case.protocol, case.ports[1], source_port=case.ports[0], flags=case.flags
    )
    # struct bpf_tunnel_key of what comes from the other node: VNI, its address
    key = THEIR_IDENTITY.to_bytes(4, "little") + int(THERE).to_bytes(4, "little") + bytes(60)
    cost = programs[case.program].run(packet, held, ifindex=case.ifindex, tunnel_key=key, marks=case.marks)
    assert cost.verdict == case.verdict
    assert cost.lookups == case.lookups.split()
    calls = Counter(cost.helpers)
    del calls["map_lookup_elem"], calls["jiffies64"]  # the verifier makes a load of it
    assert calls == case.helpers
    assert cost.instructions <= case.instructions, f"{cost.instructions} instructions"
