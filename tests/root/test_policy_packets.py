"""The scripts of policy as packets: run through the loaded programs, they get the verdict that the script expects."""

from collections.abc import Iterator
from ipaddress import ip_address
from itertools import count
from pathlib import Path

import pytest

from datapath.entries import ipcache_entry
from datapath.layout import DropReason
from datapath.policylayout import Ct
from datapath.ringbuf import PacketEvent, Ring, parse_event
from tests.support.policed import TUNNEL, Bench, bench, interfaces
from tests.support.policy_model import Model, build
from tests.support.policy_oracle import Party
from tests.support.policyscript import FOLDER, read_script
from tests.support.testrun import frame, icmp_error, run
from tests.support.waiting import until

pytestmark = pytest.mark.root

SCRIPTS = sorted(FOLDER.glob("*.txt"))
SYN, ACK, FIN = 0x02, 0x10, 0x01
CLOSING = 2  # enum ct_flag
POD, PEER, OTHER = "10.0.0.1", "10.0.0.2", "10.0.0.3"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("policy")) as each:
        yield each


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path: Path, made: Bench) -> None:
    script = read_script(path)
    model = build(script.parties, script.policies, cluster=script.cluster, default_local=script.default_local)
    made.load(model)
    wrong = []
    for flow in script.flows:
        ends = script.parties[flow.source].address, script.parties[flow.destination].address
        if (":" in ends[0]) is not (":" in ends[1]):
            continue
        if made.passes(model, flow.source, flow.destination, flow.protocol, flow.port) is not flow.passes:
            wrong.append(flow)
    assert not wrong


def server_policy(port: int = 80, **selector: str) -> dict[str, object]:
    rule = {"from": [{"podSelector": {"matchLabels": selector}}], "ports": [{"port": port}]}
    spec = {"podSelector": {"matchLabels": {"app": "pod"}}, "policyTypes": ["Ingress", "Egress"], "ingress": [rule]}
    return {"kind": "NetworkPolicy", "metadata": {"name": "p", "namespace": "default"}, "spec": spec}


def three(*policies: dict[str, object]) -> Model:
    parties = {
        name: Party(address, "pod", "cluster1", "default", {"app": name})
        for name, address in (("pod", POD), ("peer", PEER), ("other", OTHER))
    }
    return build(parties, policies)


def test_replies_pass_and_nothing_else_the_closed_pod_sends(made: Bench) -> None:
    model = three(server_policy(app="peer"))
    made.load(model)
    at = interfaces(model)["pod"]
    reply = frame(POD, PEER, "TCP", 5555, source_port=80, flags=SYN | ACK)
    assert not made.run("policy_out", reply, at), "nobody asked"
    assert made.run("policy_in", frame(PEER, POD, "TCP", 80, source_port=5555), at)
    assert made.run("policy_out", reply, at)
    assert not made.run("policy_out", frame(POD, PEER, "TCP", 5556, source_port=80, flags=ACK), at)
    assert not made.run("policy_out", frame(POD, OTHER, "TCP", 5555, source_port=80, flags=ACK), at)
    assert not made.run("policy_in", frame(OTHER, POD, "TCP", 80), at)


def test_a_change_judges_what_is_tracked_again(made: Bench) -> None:
    model = three(server_policy(app="peer"))
    made.load(model, revision=1)
    at = interfaces(model)["pod"]
    packet = frame(PEER, POD, "TCP", 80, source_port=6000, flags=ACK)
    reply = frame(POD, PEER, "TCP", 6000, source_port=80, flags=ACK)
    assert made.run("policy_in", packet, at)
    kept = made.maps.dump("md_ct4")
    still = three(
        server_policy(app="peer", port=80),
        {**server_policy(app="other"), "metadata": {"name": "q", "namespace": "default"}},
    )
    made.load(still, revision=2)
    made.maps.upsert("md_ct4", kept)
    assert made.run("policy_in", packet, at), "it is allowed still"
    assert made.run("policy_out", reply, at)
    kept = made.maps.dump("md_ct4")
    made.load(three(server_policy(app="other")), revision=3)
    made.maps.upsert("md_ct4", kept)
    assert not made.run("policy_in", packet, at)
    assert not made.run("policy_out", reply, at), "with the connection its replies ended"


def test_another_connection_between_the_same_ports_is_one_of_its_own(made: Bench) -> None:
    model = three(server_policy(app="peer"))
    made.load(model)
    at = interfaces(model)["pod"]

    def there(flags: int) -> bool:
        return made.run("policy_in", frame(PEER, POD, "TCP", 80, source_port=6500, flags=flags), at)

    def back(flags: int) -> bool:
        return made.run("policy_out", frame(POD, PEER, "TCP", 6500, source_port=80, flags=flags), at)

    assert there(SYN)
    assert back(SYN | ACK)
    assert not back(SYN), "the pod may not connect, whichever ports it takes"
    assert there(SYN)
    assert back(SYN | ACK)
    assert there(FIN | ACK)
    (entry,) = made.maps.dump("md_ct4").values()
    assert Ct.from_buffer_copy(entry).flags & CLOSING
    assert there(SYN)
    (entry,) = made.maps.dump("md_ct4").values()
    assert not Ct.from_buffer_copy(entry).flags, "it lives as long as any other"


def test_an_error_about_a_tracked_connection_passes(made: Bench) -> None:
    model = three(server_policy(app="peer"))
    made.load(model)
    at = interfaces(model)["pod"]
    assert made.run("policy_in", frame(PEER, POD, "TCP", 80, source_port=7000), at)
    answer = frame(POD, PEER, "TCP", 7000, source_port=80, flags=ACK)
    assert made.run("policy_in", icmp_error("172.18.9.9", answer), at)
    assert not made.run("policy_in", icmp_error("172.18.9.9", frame(POD, PEER, "TCP", 7001, source_port=80)), at)


def test_an_error_that_may_leave_lets_none_come_back(made: Bench) -> None:
    spec = {"endpointSelector": {"matchLabels": {"app": "pod"}}, "ingress": [{}]}
    spec["egress"] = [{"icmps": [{"fields": [{"type": 3}]}]}]
    model = three({"kind": "CiliumNetworkPolicy", "metadata": {"name": "p", "namespace": "default"}, "spec": spec})
    made.load(model)
    at = interfaces(model)["pod"]
    assert made.run("policy_out", frame(POD, PEER, "ICMP", 3), at)
    assert not made.run("policy_in", frame(PEER, POD, "ICMP", 3), at)
    assert not made.maps.dump("md_ct4")


def test_echo_replies_pass_by_their_identifier(made: Bench) -> None:
    spec = {"endpointSelector": {"matchLabels": {"app": "pod"}}, "ingress": [{}]}
    spec["egress"] = [{"icmps": [{"fields": [{"type": 8}]}]}]
    model = three({"kind": "CiliumNetworkPolicy", "metadata": {"name": "p", "namespace": "default"}, "spec": spec})
    made.load(model)
    at = interfaces(model)["pod"]
    assert made.run("policy_out", frame(POD, PEER, "ICMP", 8, source_port=77), at)
    assert made.run("policy_in", frame(PEER, POD, "ICMP", 0, source_port=77), at)
    assert not made.run("policy_in", frame(PEER, POD, "ICMP", 0, source_port=78), at)
    assert not made.run("policy_in", frame(PEER, POD, "ICMP", 8, source_port=77), at)


def test_audit_counts_and_lets_pass(made: Bench) -> None:
    model = three(server_policy(app="peer"))
    made.load(model, audit=True)
    at = interfaces(model)["pod"]
    before = made.maps.drops()
    assert made.run("policy_in", frame(OTHER, POD, "TCP", 80, source_port=8000), at)
    after = made.maps.drops()
    assert after[DropReason.POLICY_AUDITED] - before[DropReason.POLICY_AUDITED] == 1
    assert after[DropReason.POLICY_CLOSED] == before[DropReason.POLICY_CLOSED]


def test_what_was_decided_is_told_once_for_a_connection_and_for_each_drop(made: Bench) -> None:
    model = three(server_policy(app="peer"))
    made.load(model)
    at = interfaces(model)["pod"]
    ports = count(9000)
    told: list[PacketEvent] = []

    def undisturbed() -> bool:
        """Whether the drops of the tests before have left room for these events."""
        port, suppressed = next(ports), made.maps.drops()[DropReason.EVENT_SUPPRESSED]
        list(ring.read(1_000_000))
        for flags in (SYN, ACK, ACK):
            made.run("policy_in", frame(PEER, POD, "TCP", 80, source_port=port, flags=flags), at)
        for _ in range(2):
            made.run("policy_in", frame(OTHER, POD, "TCP", 81, source_port=port), at)
        told[:] = [parse_event(record) for record in ring.read(100)]
        return made.maps.drops()[DropReason.EVENT_SUPPRESSED] == suppressed

    ring = Ring(made.loaded.folder)
    try:
        until(undisturbed, "all events are told")
    finally:
        ring.close()
    assert [event.reason for event in told] == [DropReason.NONE, *[DropReason.POLICY_CLOSED] * 2]
    drop = told[-1]
    assert (str(drop.source), str(drop.destination), drop.port, drop.direction) == (OTHER, POD, 81, 0)
    assert (drop.subject, drop.peer) == (model.identities["pod"], model.identities["other"])


def test_a_flood_of_drops_is_told_in_part_and_counted_whole(made: Bench) -> None:
    model = three(server_policy(app="peer"))
    made.load(model)
    at = interfaces(model)["pod"]
    before = made.maps.drops()
    ring = Ring(made.loaded.folder)
    try:
        list(ring.read(1_000_000))
        path = made.loaded.programs.path("policy_in")
        packet = frame(OTHER, POD, "TCP", 81)
        made.namespace.call(lambda: run(path, packet, ifindex=at, repeat=20_000))
        told = len(list(ring.read(1_000_000)))
    finally:
        ring.close()
    after = made.maps.drops()
    dropped = after[DropReason.POLICY_CLOSED] - before[DropReason.POLICY_CLOSED]
    assert dropped == 20_000
    assert told + after[DropReason.EVENT_SUPPRESSED] - before[DropReason.EVENT_SUPPRESSED] == dropped
    assert told < 10_000


def test_a_peer_that_claims_a_reserved_identity_gains_nothing(made: Bench) -> None:
    model = three(server_policy(app="peer"))
    made.load(model)
    at = interfaces(model)["pod"]
    for claimed in (1, 2, 7, 255):
        made.write(ipcache_entry(ip_address("20.0.0.66"), identity=claimed, tunnel=TUNNEL, remote=True))
        assert not made.run("policy_in", frame("20.0.0.66", POD, "TCP", 80), at), claimed


def test_neighbours_and_later_fragments_are_not_judged(made: Bench) -> None:
    parties = {"pod": Party("fd00::1", "pod", "cluster1", "default", {"app": "pod"})}
    model = build(parties, [server_policy(app="peer")])
    made.load(model)
    at = interfaces(model)["pod"]
    assert made.run("policy_in", frame("fe80::1", "fd00::1", "ICMPv6", 135), at)
    assert not made.run("policy_in", frame("fe80::1", "fd00::1", "ICMPv6", 128), at)
    fragment = bytearray(frame(PEER, POD, "UDP", 9999))
    fragment[14 + 6 : 14 + 8] = (100).to_bytes(2, "big")
    assert made.run("policy_in", bytes(fragment), at)


def test_pods_without_policy_are_not_looked_at(made: Bench) -> None:
    model = three()
    made.load(model)
    at = interfaces(model)["pod"]
    assert made.run("policy_in", frame(OTHER, POD, "TCP", 1), at)
    assert not made.maps.dump("md_ct4")


def test_a_source_that_no_cluster_has_announced_passes_only_where_no_ingress_policy_selects(made: Bench) -> None:
    """Everybody may come in, and still it may not: a rule that denies might be about it."""
    selector: dict[str, object] = {"endpointSelector": {"matchLabels": {"app": "pod"}}}
    spec = selector | {"ingress": [{"fromEntities": ["all"]}]}
    everybody: dict[str, object] = {
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "p", "namespace": "default"},
        "spec": spec,
    }
    nobody_yet = "20.0.0.77"
    model = three(everybody)
    made.load(model)
    at = interfaces(model)["pod"]
    before = made.maps.drops()[DropReason.SOURCE_UNVERIFIED]
    assert made.run("policy_in", frame(OTHER, POD, "TCP", 80), at)
    assert not made.run("policy_in", frame(nobody_yet, POD, "TCP", 80), at)
    assert made.maps.drops()[DropReason.SOURCE_UNVERIFIED] == before + 1
    assert made.run("policy_out", frame(POD, nobody_yet, "TCP", 80, source_port=4711), at)
    assert made.run("policy_in", frame(nobody_yet, POD, "TCP", 4711, source_port=80, flags=ACK), at), "it was asked"
    model = three(everybody | {"spec": selector | {"egress": [{"toEntities": ["all"]}]}})
    made.load(model)
    assert made.run("policy_in", frame(nobody_yet, POD, "TCP", 80), interfaces(model)["pod"])
