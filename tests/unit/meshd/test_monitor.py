"""What `meshd monitor` shows, and whom its options mean."""

from typing import Any

import click
import pytest
from click.testing import CliRunner

from datapath.layout import DropReason
from meshd.monitor import event_text, is_meant, monitor
from meshd.reasons import MEANING
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
    "who", ["10.0.0.1", "fd00::/64", "cluster1", "default/web", "cluster1/default/web", "65537", "app=web"]
)
def test_whom_the_options_can_mean(who: str) -> None:
    answer = CliRunner().invoke(monitor, ["--from", who, "--run-dir", "/nowhere"])
    assert answer.exit_code == EXIT_OF["broken"]


@pytest.mark.parametrize(
    "arguments", [("--from", "gar bage"), ("--to", "10.0.0.300/8"), ("--last", "-5"), ("--seconds", "-1")]
)
def test_a_filter_that_can_match_nothing_is_refused(arguments: tuple[str, str]) -> None:
    answer = CliRunner().invoke(monitor, [*arguments, "--run-dir", "/nowhere"])
    assert answer.exit_code == click.UsageError.exit_code
    assert arguments[1] in answer.output
