"""The commands that ask a daemon's socket, against one that answers as a daemon does."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from meshd.cli import program
from meshd.socket import serve

ENTRY = {"map": "md_ipcache", "desired": "20.0.0.1 identity=7", "realised": None, "in_sync": False, "reason": "full"}
NODE = {"cluster": "c2", "name": "n1", "address": "172.18.2.11", "pod_cidrs": ["20.0.0.0/24"]}
CLAIM = {"cluster": "c2", "says": "PodCIDR 20.0.0.0/24", "presence": "stale", "lost_age_s": 9.0}
IP = {"address": "20.0.0.1", "instance": "c1.n1", "reason": "", "realised": ["20.0.0.1 identity=7"]}
PLAN = {"instance": "c1.n1", "mode": "tunnel", "peers": {}, "problems": {}, "conflicts": [], "routes": []}
EVENT = {"number": 1, "age_s": 3.0, "event": "withdrawn", "cluster": "c2", "detail": "nobody answers"}


async def run(folder: Path, routes: Mapping[str, Callable[..., object]], *words: str) -> Result:
    async with serve(folder / "c1.n1" / "daemon.sock", routes):
        return await asyncio.to_thread(CliRunner().invoke, program, [*words, "--run-dir", str(folder)])


@pytest.mark.parametrize(("flags", "route"), [((), "/v1/list/{what}"), (("--diff",), "/v1/diff/{what}")])
async def test_an_entry_that_the_kernel_lacks_is_shown_with_its_reason(
    tmp_path: Path, flags: tuple[str, ...], route: str
) -> None:
    def answer(**_: str) -> object:
        return [ENTRY] if flags else {"rows": [ENTRY], "total": 5}

    result = await run(tmp_path, {route: answer}, "ipcache", "list", *flags)
    assert "20.0.0.1 identity=7" in result.output
    assert "nothing full" in result.output
    assert ("and 4 more" in result.output) is not bool(flags)
    assert result.exit_code == 1


@pytest.mark.parametrize("what", ["ipcache", "node", "service", "identity"])
async def test_what_the_kernel_lacks_of_one_kind_is_asked_for(tmp_path: Path, what: str) -> None:
    asked = []

    def answer(what: str) -> object:
        asked.append(what)
        return [] if len(asked) > 1 else [ENTRY]

    result = await run(tmp_path, {"/v1/diff/{what}": answer}, what, "list", "--diff")
    assert (result.exit_code, "nothing full" in result.output) == (1, True)
    result = await run(tmp_path, {"/v1/diff/{what}": answer}, what, "list", "--diff", "-o", "json")
    assert (result.exit_code, json.loads(result.output)) == (0, [])
    assert asked == [what, what]


@pytest.mark.parametrize(
    ("refused", "answers", "code"), [("", True, 0), ("", None, 0), ("", False, 1), ("own-address", None, 1)]
)
async def test_a_node_that_is_refused_or_silent_degrades(
    tmp_path: Path, refused: str, answers: bool | None, code: int
) -> None:
    rows = {"rows": [NODE | {"refused": refused, "answers": answers}], "total": 1}
    result = await run(tmp_path, {"/v1/list/{what}": lambda what: rows}, "node", "list")
    assert (result.exit_code, "20.0.0.0/24" in result.output) == (code, True)


async def test_identities_are_listed_as_json_too(tmp_path: Path) -> None:
    row = {"cluster": "c2", "identity": 7, "labels": "k8s:a=b;"}
    rows = {"rows": [row], "total": 1}
    result = await run(tmp_path, {"/v1/list/{what}": lambda what: rows}, "identity", "list", "-o", "json")
    assert json.loads(result.output) == [{"instance": "c1.n1", **row}]


@pytest.mark.parametrize(("believed", "says", "code"), [(True, "BELIEVED", 0), (False, "own-address for 2m", 1)])
async def test_an_address_is_explained(tmp_path: Path, believed: bool, says: str, code: int) -> None:
    claim = CLAIM | {"believed": believed, "reason": "own-address", "held_age_s": None if believed else 120.0}
    answer = IP | {"claims": [claim]}
    result = await run(tmp_path, {"/v1/ip/{address}": lambda address: answer}, "explain", "ip", "20.0.0.1")
    assert f"c2 (stale for 9s): PodCIDR 20.0.0.0/24: {'' if believed else 'NOT BELIEVED: '}{says}" in result.output
    assert result.exit_code == code


async def test_events_are_shown_with_their_age(tmp_path: Path) -> None:
    answer = {"last": 1, "events": [EVENT]}
    result = await run(tmp_path, {"/v1/events/{after}": lambda after: answer}, "events")
    assert result.output.strip() == "3s ago  c1.n1  c2  withdrawn  nobody answers"


EMPTY = {
    ("ipcache", "list"): ("/v1/list/{what}", {"rows": [], "total": 0}, "nothing is there"),
    ("service", "list"): ("/v1/services", [], "no service is global"),
    ("policy", "list"): ("/v1/policies", [], "no policy is there"),
    ("plan",): ("/v1/plan", PLAN, "no PodCIDR of another node is known here"),
    ("plan", "nosuch"): ("/v1/plan", PLAN, "nothing known of nosuch"),
}


@pytest.mark.parametrize("words", EMPTY)
async def test_what_is_not_there_is_said_in_a_sentence(tmp_path: Path, words: tuple[str, ...]) -> None:
    route, answer, says = EMPTY[words]
    result = await run(tmp_path, {route: lambda **_: answer}, *words)
    assert says in result.output
    assert not [line for line in result.output.splitlines() if line.isupper()], "no bare headings"


async def test_a_name_is_shown_as_it_is_and_styles_nothing(tmp_path: Path) -> None:
    labels = "k8s:a=[/b][bold]x:cat:\x1b[31m;"
    rows = {"rows": [{"cluster": "c2", "identity": 7, "labels": labels}], "total": 1}
    result = await run(tmp_path, {"/v1/list/{what}": lambda what: rows}, "identity", "list")
    assert labels.replace("\x1b", "\\x1b") in result.output


@pytest.mark.parametrize("words", [("events",), ("ipcache", "list"), ("node", "list"), ("explain", "ip", "1.2.3.4")])
def test_nobody_there_is_broken(tmp_path: Path, words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(program, [*words, "--run-dir", str(tmp_path)])
    assert result.exit_code == 2
    assert "is `meshd daemon` running" in result.output


def test_the_version_names_the_layout_of_the_maps() -> None:
    assert json.loads(CliRunner().invoke(program, ["version", "-o", "json"]).output)["map_layout"] == "1"


async def test_whose_a_row_is_is_said_where_several_daemons_answer(tmp_path: Path) -> None:
    rows = {"rows": [{"cluster": "c2", "identity": 7, "labels": "k8s:a=b;"}], "total": 1}
    routes = {"/v1/list/{what}": lambda what: rows}
    async with serve(tmp_path / "c1.n2" / "daemon.sock", routes):
        lines = (await run(tmp_path, routes, "identity", "list")).output.splitlines()
    assert [line.split() for line in lines] == [
        ["INSTANCE", "CLUSTER", "IDENTITY", "LABELS"],
        ["c1.n1", "c2", "7", "k8s:a=b;"],
        ["c1.n2", "c2", "7", "k8s:a=b;"],
    ]


async def test_no_difference_is_said(tmp_path: Path) -> None:
    result = await run(tmp_path, {"/v1/diff/{what}": lambda what: []}, "ipcache", "list", "--diff")
    assert (result.exit_code, result.output) == (0, "no difference: the kernel holds what is desired\n")


@pytest.mark.parametrize("words", [("node", "list"), ("events",), ("explain", "ip", "1.2.3.4"), ("service", "list")])
async def test_a_wrong_instance_is_told_which_there_are(tmp_path: Path, words: tuple[str, ...]) -> None:
    result = await run(tmp_path, {}, *words, "--instance", "c1.n9")
    assert (result.exit_code, f"no daemon c1.n9 in {tmp_path}: there are c1.n1" in result.output) == (2, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("explain", "ip", "20.0.0.0/24"), "is not an IP address"),
        (("explain", "ip", "fe80::1%eth0"), "has a scope"),
        (("explain", "service", "rebel-base"), "is not NAMESPACE/NAME"),
        (("explain", "service", "a b/c"), "is not NAMESPACE/NAME"),
        (("explain", "service", "a/b/c"), "is not NAMESPACE/NAME"),
        (("explain", "service", "a/b?x=1"), "is not NAMESPACE/NAME"),
        (("status", "--wait", "--timeout", "-1"), "--timeout"),
    ],
)
async def test_what_cannot_be_asked_is_said_before_anybody_is(
    tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    result = await run(tmp_path, {}, *words)
    assert isinstance(result.exception, SystemExit)
    assert says in result.output


async def test_following_ends_with_ctrl_c_and_without_a_traceback(tmp_path: Path) -> None:
    """What happened is there at once; then it waits, until somebody has seen enough."""
    argv = ["env", "--default-signal=INT", sys.executable, "-P", "-m", "meshd", "events", "-f"]
    argv.append(f"--run-dir={tmp_path}")
    answer = {"last": 1, "events": [EVENT]}
    async with serve(tmp_path / "c1.n1" / "daemon.sock", {"/v1/events/{after}": lambda after: answer}):
        process = await asyncio.create_subprocess_exec(*argv, stdout=PIPE, stderr=PIPE)
        try:
            assert process.stdout is not None
            first = await asyncio.wait_for(process.stdout.readline(), 60)
            process.send_signal(signal.SIGINT)
            _, said = await asyncio.wait_for(process.communicate(), 60)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
    assert b"withdrawn" in first
    assert (process.returncode, said.strip()) == (130, b"meshd: interrupted")


PROBLEM = "meshd.io/zone-hints: '[/b]' is neither true nor false: it is ignored"
SERVICE = {"name": "ns/s", "frontends": [{"frontend": "30.1.1.1:80/TCP", "backends": 3}], "problems": []}
POLICY = {
    **{"kind": "NetworkPolicy", "namespace": "ns", "name": "p", "problem": "", "closes": ["ingress"], "rules": 1},
    **{"pods": ["ns/pod (10.0.0.1)"], "in_force": ["ns/pod (10.0.0.1)"], "audited": []},
}


@pytest.mark.parametrize(
    ("words", "route", "one", "two", "code"),
    [
        (("service", "list"), "/v1/services", SERVICE, SERVICE | {"problems": [PROBLEM]}, 1),
        (("policy", "list"), "/v1/policies", POLICY, POLICY | {"problem": "egress[0].to[/b]: not supported"}, 1),
    ],
)
async def test_of_several_daemons_it_is_said_who_says_what(
    tmp_path: Path, words: tuple[str, ...], route: str, one: dict[str, Any], two: dict[str, Any], code: int
) -> None:
    async with serve(tmp_path / "c2.n1" / "daemon.sock", {route: lambda: [two]}):
        both = await run(tmp_path, {route: lambda: [one]}, *words)
        alone = await run(tmp_path, {route: lambda: [one]}, *words, "--instance", "c1.n1")
        wrong = await run(tmp_path, {route: lambda: [one]}, *words, "--instance", "i3")
    assert (both.exit_code, alone.exit_code, wrong.exit_code) == (code, 0, 2)
    assert [line for line in both.output.splitlines() if line in ("c1.n1:", "c2.n1:")] == ["c1.n1:", "c2.n1:"]
    assert "[/b]" in both.output
    assert "c1.n1:" not in alone.output
    assert f"no daemon i3 in {tmp_path}: there are c1.n1, c2.n1" in wrong.output
