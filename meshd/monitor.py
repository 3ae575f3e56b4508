"""`meshd monitor`: what the kernels of this machine's daemons decide about packets, as it happens."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import click

from meshd.asking import INSTANCE, RUN_DIR, ask, daemon_sockets
from meshd.policies import party_text
from meshd.reasons import MEANING
from meshd.socket import SocketError, get
from meshd.status import EXIT_OF

POLL_S = 0.25
ANSWERS = 16
"""How many answers of one daemon are shown before the next one's turn."""
Event = dict[str, Any]
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[a-z0-9]([-a-z0-9.]*[a-z0-9])?){0,2}")
_NUMBERS = re.compile(r"[0-9./:]+")
_IDENTITY = re.compile(r"[0-9]{1,10}")
_LABEL = re.compile(r"(?:k8s:|any:)?([^:=]+=.*|reserved:[a-z-]+)")


def _who(ctx: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """A value that no packet can ever match would look like a mesh without drops."""
    if value is None or _IDENTITY.fullmatch(value):
        return value
    if label := _LABEL.fullmatch(value):
        return label[1]
    if _NAME.fullmatch(value) and not _NUMBERS.fullmatch(value):
        return value
    try:
        ip_network(value, strict=False)
    except ValueError as error:
        whom = "address, prefix, [CLUSTER/]NAMESPACE/POD, cluster, identity or label (KEY=VALUE, reserved:NAME)"
        reason = f"{value!r} is no {whom}"
        raise click.BadParameter(reason, ctx, option) from error
    return value


@click.command()
@click.option("--drops", is_flag=True, help="Only what was dropped, or would be.")
@click.option("--from", "source", callback=_who, help="Only packets from WHO.")
@click.option("--to", "destination", callback=_who, help="Only packets to WHO.")
@click.option("--seconds", type=click.FloatRange(min=0), help="End after this time.  [default: go on]")
@click.option("--last", type=click.IntRange(min=0), default=0, help="Begin with this many of the past.")
@click.option("--counters", is_flag=True, help="How many were dropped so far, by reason; then end.")
@RUN_DIR
@INSTANCE
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.pass_context
def monitor(
    ctx: click.Context,
    drops: bool,
    source: str | None,
    destination: str | None,
    seconds: float | None,
    last: int,
    counters: bool,
    run_dir: Path,
    instance: str | None,
    output: str,
) -> None:
    """Shows every drop, and verdicts on new connections, with who, whose, and by which rule.

    WHO is an address, a prefix, [CLUSTER/]NAMESPACE/POD, a cluster, an identity's number, a label KEY=VALUE or
    reserved:NAME.

    The kernel tells at most 500 events a second, CPU and reason; what is not told is counted, and said. Alike events
    are one line with a count. JSON: one object a line.

    Exit codes: 0 ok, 2 no daemon answers.
    """
    if counters and (drops or source or destination or last or seconds is not None):
        raise click.UsageError("--counters counts all packets and ends: it goes with --instance and --output only")
    answers, errors = ask(run_dir, instance, "/v1/drops" if counters else f"/v1/verdicts/{1 << 62}")
    for error in errors:
        click.echo(error, err=True)
    if not answers:
        ctx.exit(EXIT_OF["broken"])
    if counters:
        _show_counters(run_dir, instance, output)
        return
    followed: dict[Path, Follower] = {}
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        for path in daemon_sockets(run_dir, instance):
            if path not in followed:
                followed[path] = Follower(path, last, output)
            followed[path].show(lambda event: _is_wanted(event, drops, source, destination))
        if deadline is not None and time.monotonic() >= deadline:
            return
        time.sleep(POLL_S)


@dataclass(slots=True)
class Follower:
    """One daemon: what it told is shown once; what it could not tell is said."""

    path: Path
    last: int
    output: str
    seen: int | None = None
    suppressed: int = field(default=0, init=False)
    is_lost: bool = field(default=False, init=False)

    def show(self, wanted: Callable[[Event], bool]) -> None:
        try:
            if self.seen is None:
                answer = get(self.path, f"/v1/verdicts/{1 << 62}")
                self.seen, self.suppressed = max(0, answer["told"] - self.last), answer["suppressed"]
            for _ in range(ANSWERS):
                answer = get(self.path, f"/v1/verdicts/{self.seen}")
                if answer["told"] < self.seen:  # a new process counts anew
                    self.seen = 0
                    continue
                self._show(answer, wanted)
                self.seen = answer["next"]
                self._tell(lost="")
                if self.seen == answer["told"]:
                    return
        except SocketError as error:
            self._tell(lost=str(error))

    def _tell(self, lost: str) -> None:
        """Silence of a daemon is no sign that nothing was dropped."""
        if bool(lost) is not self.is_lost:
            self.is_lost = bool(lost)
            click.echo(lost or f"{self.path}: answers again", err=True)

    def _show(self, answer: Event, wanted: Callable[[Event], bool]) -> None:
        name = self.path.parent.name
        for event in filter(wanted, answer["events"]):
            click.echo(json.dumps({"instance": name, **event}) if self.output == "json" else event_text(name, event))
        lost = {"lost": answer["lost"], "suppressed": max(0, answer["suppressed"] - self.suppressed)}
        self.suppressed = answer["suppressed"]
        if self.output == "json" and any(lost.values()):
            click.echo(json.dumps({"instance": name, **lost}))
            return
        if lost["lost"]:
            click.echo(f"{name}: {lost['lost']} events came too fast to be shown", err=True)
        if lost["suppressed"]:
            click.echo(f"{name}: {lost['suppressed']} more were not told one by one (--counters has all)", err=True)


def _show_counters(run_dir: Path, instance: str | None, output: str) -> None:
    for path in daemon_sockets(run_dir, instance):
        try:
            counts = get(path, "/v1/drops")
        except SocketError:
            continue
        if output == "json":
            click.echo(json.dumps({"instance": path.parent.name, "reasons": counts}))
            continue
        if not any(found["packets"] for found in counts.values()):
            click.echo(f"{path.parent.name}: nothing was dropped since its maps were made")
        for reason, found in counts.items():
            if found["packets"]:
                what = "dropped" if found["dropped"] else "passed"
                click.echo(f"{path.parent.name}: {found['packets']} {what}: {reason}: {MEANING.get(reason, '')}")


def _is_wanted(event: Event, drops: bool, source: str | None, destination: str | None) -> bool:
    if drops and event["verdict"] == "allow":
        return False
    ends = ((event["source"], source), (event["destination"], destination))
    return all(wanted is None or is_meant(party, wanted) for party, wanted in ends)


def is_meant(party: Event, who: str) -> bool:
    """Whether `who`, as the options take it, means this party of an event."""
    if who in (party["address"], party["cluster"], party["pod"], f"{party['cluster']}/{party['pod']}"):
        return bool(who)
    if _IDENTITY.fullmatch(who):
        return bool(int(who) == party["identity"])
    if _LABEL.fullmatch(who):
        return who in list(party["labels"])
    try:
        return ip_address(party["address"]) in ip_network(who, strict=False)
    except ValueError:
        return False


def event_text(instance: str, event: Event) -> str:
    """One line for people."""
    why = "; ".join(event["by"]) or f"{event['reason']}: {MEANING.get(event['reason'], '')}"
    ends = f"{party_text(event['source'])} -> {party_text(event['destination'])}"
    place = f"{event['direction']} {event['protocol']}/{event['destination']['port']}"
    often = f" ({event['count']} times)" if event["count"] > 1 else ""
    return f"{instance}: {event['verdict']} {place} {ends}: {why}{often}"
