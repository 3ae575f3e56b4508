"""What `meshd monitor` shows, and whom its options mean."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from datapath.layout import DropReason
from meshd.monitor import Follower, event_text, is_meant, monitor
from meshd.reasons import MEANING
from meshd.socket import serve
from meshd.status import EXIT_OF

X_WING = {
    "address": "10.0.1.2",
    "identity": 65540,
    "cluster": "cluster1",
    "pod": "default/x-wing",
    "labels": ["app=x-wing", "io.kubernetes.pod.namespace=default"],
    "port": 40000,
}
STRANGER = {"address": "192.0.2.7", "identity": 2, "cluster": "", "pod": "", "labels": ["reserved:world"], "port": 80}


@pytest.mark.parametrize(
    "who",
    [
        "10.0.1.2",
        "10.0.0.0/16",
        "default/x-wing",
        "cluster1/default/x-wing",
        "cluster1",
        "65540",
        "app=x-wing",
    ],
)
def test_whom_an_option_means(who: str) -> None:
    assert is_meant(X_WING, who)
    assert not is_meant(STRANGER, who)


@pytest.mark.parametrize("who", ["10.0.1.3", "2001:db8::/32", "x-wing", "cluster2/default/x-wing", "7", "app=x", ""])
def test_and_whom_not(who: str) -> None:
    assert not is_meant(X_WING, who)
    assert not is_meant(STRANGER, who)


def event(**said: Any) -> dict[str, Any]:
    given = {"verdict": "drop", "direction": "egress", "protocol": "TCP", "by": [], "count": 1}
    return {**given, "reason": "spoofed", "source": X_WING, "destination": STRANGER, **said}


def test_a_line_says_why_and_how_often() -> None:
    assert event_text("one", event()) == (
        "one: drop egress TCP/80 default/x-wing (10.0.1.2, cluster1, identity 65540) -> "
        f"reserved:world (192.0.2.7, identity 2): spoofed: {MEANING['spoofed']}"
    )
    text = event_text("one", event(by=["NetworkPolicy default/p egressDeny[0]"], count=7))
    assert text.endswith(": NetworkPolicy default/p egressDeny[0] (7 times)")


def test_every_reason_has_a_meaning() -> None:
    assert MEANING.keys() == {reason.label for reason in DropReason}


@pytest.mark.parametrize(
    "who",
    [
        *("10.0.0.1", "fd00::/64", "cluster1", "default/web", "cluster1/default/web", "65537"),
        *("app=web", "k8s:app=web", "example.com/app=web", "app=", "reserved:world"),
    ],
)
def test_whom_the_options_can_mean(who: str) -> None:
    answer = CliRunner().invoke(monitor, ["--from", who, "--run-dir", "/nowhere"])
    assert answer.exit_code == EXIT_OF["broken"]


@pytest.mark.parametrize(
    "arguments",
    [
        *(("--from", "gar bage"), ("--to", "10.0.0.300/8"), ("--last", "-5"), ("--seconds", "-1")),
        *(("--from", "\u00b2"), ("--to", "7" * 11), ("--from", "container:app=web"), ("--to", "=web")),
    ],
)
def test_a_filter_that_can_match_nothing_is_refused(arguments: tuple[str, str]) -> None:
    answer = CliRunner().invoke(monitor, [*arguments, "--run-dir", "/nowhere"])
    assert answer.exit_code == click.UsageError.exit_code
    assert arguments[1] in answer.output


def test_the_source_of_a_label_may_be_said() -> None:
    given = monitor.make_context("monitor", ["--from", "k8s:app=x-wing", "--to", "reserved:world"])
    assert is_meant(X_WING, given.params["source"])
    assert is_meant(STRANGER, given.params["destination"])
    assert not is_meant(X_WING, given.params["destination"])


@pytest.mark.parametrize("option", ["--drops", "--from=app=x", "--to=10.0.0.1", "--seconds=0", "--last=1"])
def test_counters_are_of_all_packets(option: str) -> None:
    answer = CliRunner().invoke(monitor, ["--counters", option, "--run-dir", "/nowhere"])
    assert answer.exit_code == click.UsageError.exit_code


async def test_no_drops_are_said_and_so_is_a_daemon_that_stops_answering(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "one" / "daemon.sock"
    told = {"told": 0, "next": 0, "lost": 0, "suppressed": 0, "events": []}
    routes: dict[str, Callable[..., object]] = {
        "/v1/verdicts/{after}": lambda after: told,
        "/v1/drops": lambda: {"spoofed": {"packets": 0, "dropped": True}},
    }
    follower = Follower(path, 0, "text")

    async def show() -> str:
        await asyncio.to_thread(follower.show, lambda event: True)
        return capsys.readouterr().err

    async with serve(path, routes):
        assert await show() == ""
        counters = partial(CliRunner().invoke, monitor, ["--counters", "--run-dir", str(tmp_path)])
        answer = await asyncio.to_thread(counters)
        assert (answer.exit_code, answer.output) == (0, "one: nothing was dropped since its maps were made\n")
    assert "no answer" in await show()
    assert await show() == ""
    async with serve(path, routes):
        assert await show() == f"{path}: answers again\n"
        assert await show() == ""
