from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from policy.engine import Engine, EntryKey, Update
from policy.model import Direction, PolicyKind, PolicyRef
from policy.parsing import parse_policy
from policy.ports import TCP
from policy.scope import Scope
from tests.support.policy_cases import FLOWS, PORTS, parties, policies
from tests.support.policy_model import build, join, labels_of, ref_of
from tests.support.policy_oracle import Oracle, Party
from tests.support.policyscript import NUMBERS

SCOPE = Scope("cluster1")


@settings(max_examples=120)
@given(parties(), policies(), st.booleans())
def test_the_verdict_of_the_entries_is_that_of_the_specification(
    everybody: dict[str, Party], documents: list[dict[str, Any]], default_local: bool
) -> None:
    model = build(everybody, documents, default_local=default_local)
    assert not [p.problem for p in model.engine.policies.values() if p.problem]
    oracle = Oracle("cluster1", tuple(documents), default_local)
    for source in everybody:
        for destination in everybody:
            for protocol, port in FLOWS:
                expected = oracle.passes(everybody[source], everybody[destination], protocol, port)
                verdict = model.passes(source, destination, NUMBERS[protocol], port)
                assert verdict is expected, (source, destination, protocol, port)


@settings(max_examples=60)
@given(parties(), policies(), st.sampled_from(PORTS))
def test_an_explanation_gives_the_verdict_of_the_entries(
    everybody: dict[str, Party], documents: list[dict[str, Any]], port: int
) -> None:
    model = build(everybody, documents)
    engine = model.engine
    for source in everybody:
        for destination in everybody:
            allowed = True
            for subject, way, peer in (
                (source, Direction.EGRESS, destination),
                (destination, Direction.INGRESS, source),
            ):
                party = everybody[subject]
                if party.kind == "pod" and party.cluster == "cluster1":
                    verdict = engine.explain(model.identities[subject], way, model.identity(peer), TCP, port)
                    allowed &= verdict.allowed
                    assert bool(verdict.by) or verdict.allowed is not verdict.closed
            assert model.passes(source, destination, TCP, port) is allowed


def _apply(table: dict[EntryKey, bool], update: Update) -> None:
    for key, allowed in update.entries.items():
        if allowed is None:
            del table[key]
        else:
            table[key] = allowed


@settings(max_examples=80)
@given(st.data())
def test_step_by_step_equals_all_at_once(data: st.DataObject) -> None:
    everybody = data.draw(parties())
    versions = [data.draw(policies()) for _ in range(2)]
    model = build({}, [])
    model.parties = everybody
    engine, table = model.engine, dict[EntryKey, bool]()
    steps = [("join", name) for name in everybody] + [("policy", p) for version in versions for p in version]
    for what, thing in data.draw(st.permutations(steps)):
        if what == "join":
            join(model, str(thing), everybody[str(thing)])
        elif isinstance(thing, dict):
            engine.set_policy(ref_of(thing), parse_policy(ref_of(thing), thing, SCOPE))
        if data.draw(st.booleans()):
            _apply(table, engine.compute())
    leaving = data.draw(st.sets(st.sampled_from([n for n in everybody if n.startswith("pod")]), max_size=2))
    for name in leaving:
        engine.set_present(model.identities[name], False)
        engine.set_identity(model.identities[name], None)
        engine.set_named_ports(model.identities[name], {})
    _apply(table, engine.compute())
    assert table == engine.table()

    fresh = Engine()
    for name, number in model.identities.items():
        if name not in leaving and everybody[name].kind == "pod":
            fresh.set_identity(number, labels_of(everybody[name]))
            fresh.set_named_ports(number, engine._named.get(number, {}))
            fresh.set_present(number, everybody[name].cluster == "cluster1")
    fresh.cidrs.restore(engine.cidrs.numbers)
    for ref, policy in engine.policies.items():
        fresh.set_policy(ref, policy)
    fresh.compute()
    assert fresh.table() == table
    assert fresh.holdings() == engine.holdings()


@given(policies())
def test_without_policies_nothing_is_left(documents: list[dict[str, Any]]) -> None:
    model = build({"p": Party("10.0.0.1", "pod", "cluster1", "a")}, documents)
    for document in documents:
        model.engine.set_policy(ref_of(document), None)
    model.engine.compute()
    assert not model.engine.table()
    assert not model.engine.cidrs.numbers
    assert not len(model.engine.peers)


def test_a_new_identity_costs_the_selectors_that_may_match_it() -> None:
    engine = Engine()
    for number in range(500):
        ref = PolicyRef(PolicyKind.CILIUM, "default", f"p{number}")
        rule = {"fromEndpoints": [{"matchLabels": {"app": f"client{number}"}}]}
        document = {"spec": {"endpointSelector": {"matchLabels": {"app": f"server{number}"}}, "ingress": [rule]}}
        engine.set_policy(ref, parse_policy(ref, document, SCOPE))
    pod = Party("10.0.0.1", "pod", "cluster1", "default", {"app": "server7"})
    engine.set_identity(1 << 16, labels_of(pod))
    engine.set_present(1 << 16, True)
    engine.compute()
    before = engine.peers.evaluations
    client = Party("10.0.0.2", "pod", "cluster1", "default", {"app": "client7"})
    engine.set_identity((1 << 16) + 1, labels_of(client))
    update = engine.compute()
    assert engine.peers.evaluations - before == 1
    assert [key.peer for key in update.entries] == [(1 << 16) + 1]


def test_an_invalid_policy_that_becomes_valid_opens_what_it_allows() -> None:
    ref = PolicyRef(PolicyKind.CILIUM, "default", "p")
    everybody = {
        "a": Party("10.0.0.1", "pod", "cluster1", "default", {"app": "a"}),
        "b": Party("10.0.0.2", "pod", "cluster1", "default", {"app": "b"}),
    }
    model = build(everybody, [])
    spec = {"endpointSelector": {"matchLabels": {"app": "a"}}, "ingress": [{"fromEndpoints": [{}], "fromFoo": []}]}
    model.engine.set_policy(ref, parse_policy(ref, {"spec": spec}, SCOPE))
    model.engine.compute()
    assert not model.passes("b", "a", TCP, 80)
    model.engine.set_policy(ref, parse_policy(ref, {"spec": {**spec, "ingress": [{"fromEndpoints": [{}]}]}}, SCOPE))
    model.engine.compute()
    assert model.passes("b", "a", TCP, 80)


def test_a_name_that_gets_another_number_changes_the_entries_on_both_sides() -> None:
    engine, client, server = Engine(), 1 << 16, (1 << 16) + 1
    for number, app in ((client, "client"), (server, "server")):
        engine.set_identity(number, labels_of(Party("10.0.0.1", "pod", "cluster1", "default", {"app": app})))
        engine.set_present(number, True)
    for way, subject, peer in (("egress", "client", "server"), ("ingress", "server", "client")):
        ref = PolicyRef(PolicyKind.CILIUM, "default", way)
        side = "toEndpoints" if way == "egress" else "fromEndpoints"
        rule = {side: [{"matchLabels": {"app": peer}}], "toPorts": [{"ports": [{"port": "http", "protocol": "TCP"}]}]}
        document = {"spec": {"endpointSelector": {"matchLabels": {"app": subject}}, way: [rule]}}
        engine.set_policy(ref, parse_policy(ref, document, SCOPE))
    for port in (80, 8080):
        engine.set_named_ports(server, {(TCP, "http"): {port}})
        engine.compute()
        found = {(key.subject, key.peer, key.block.port) for key in engine.table() if key.block.length}
        assert found == {(client, server, port), (server, client, port)}
