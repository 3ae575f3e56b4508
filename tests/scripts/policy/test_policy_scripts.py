"""Every script of this folder: the compiled entries, the naive interpreter and the script's own table agree."""

import pytest

from policy.ports import LAST_PORT
from tests.support.policy_model import build
from tests.support.policyscript import FOLDER, NUMBERS, PolicyScript, read_script

SCRIPTS = sorted(FOLDER.glob("*.txt"))


@pytest.fixture(params=SCRIPTS, ids=lambda path: path.stem)
def script(request: pytest.FixtureRequest) -> PolicyScript:
    return read_script(request.param)


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) > 8


def test_compiled_entries_give_the_expected_table(script: PolicyScript) -> None:
    model = build(script.parties, script.policies, cluster=script.cluster, default_local=script.default_local)
    wrong = [
        flow
        for flow in script.flows
        if model.passes(flow.source, flow.destination, NUMBERS[flow.protocol], flow.port) is not flow.passes
    ]
    assert not wrong


def test_the_naive_interpreter_gives_the_expected_table(script: PolicyScript) -> None:
    if script.invalid:
        pytest.skip("what is invalid is ours to define; the specifications do not")
    oracle, parties = script.oracle, script.parties
    wrong = [
        flow
        for flow in script.flows
        if oracle.passes(parties[flow.source], parties[flow.destination], flow.protocol, flow.port) is not flow.passes
    ]
    assert not wrong


def test_both_agree_about_everything_else(script: PolicyScript) -> None:
    if script.invalid:
        pytest.skip("what is invalid is ours to define; the specifications do not")
    model = build(script.parties, script.policies, cluster=script.cluster, default_local=script.default_local)
    oracle, parties = script.oracle, script.parties
    ports = {(flow.protocol, flow.port) for flow in script.flows} | {("UDP", 53), ("TCP", LAST_PORT)}
    for source in parties:
        for destination in parties:
            for protocol, port in ports:
                if source != destination:
                    expected = oracle.passes(parties[source], parties[destination], protocol, port)
                    found = model.passes(source, destination, NUMBERS[protocol], port)
                    assert found is expected, (source, destination, protocol, port)


def test_invalid_policies_name_the_field(script: PolicyScript) -> None:
    model = build(script.parties, script.policies, cluster=script.cluster, default_local=script.default_local)
    problems = {f"{ref.namespace}/{ref.name}": p.problem for ref, p in model.engine.policies.items() if p.problem}
    assert problems.keys() == {name for name, _ in script.invalid}
    for name, place in script.invalid:
        assert place in problems[name]
