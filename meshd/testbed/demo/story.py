"""Plays the steps one after the other on a fresh testbed, prints the table, writes the JSON, cleans up."""

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from meshd.console import standard_console
from meshd.single import alone
from meshd.testbed.demo import witness
from meshd.testbed.demo.capture import Capture
from meshd.testbed.demo.client import ClientError
from meshd.testbed.demo.policysteps import POLICY_STEPS
from meshd.testbed.demo.stage import Seen, Stage
from meshd.testbed.demo.steps import STEPS, Step
from meshd.testbed.layout import ROOT
from meshd.testbed.netns import NetworkError
from meshd.testbed.process import StartError
from meshd.testbed.testbed import Testbed

LOG_WIDTH = 140
"""Columns of the table where no terminal says how wide it is."""


class Outcome(msgspec.Struct, frozen=True):
    """A line of build/demo.json."""

    step: str
    expect: str
    seen: str
    ok: bool
    seconds: float


def run_demo(bed: Testbed, build: Path, *, control: bool = False, keep: bool = False) -> bool:
    """The whole demo; True if every step saw what it expects. Evidence goes to `<build>/demo/`.

    `control` stops the daemons before step b and ends after it: then b must fail, and True means that it did.
    Raises what Testbed.up() raises.
    """
    console = standard_console(LOG_WIDTH)
    title = "control" if control else "demo"
    evidence, result = build / title, build / f"{title}.json"
    # A second demo with the tag would take the first one's testbed away.
    lock = alone(ROOT / f"{bed.layout.tag}.demo.lock", "a demo with this tag runs: give another --tag")
    with lock, _interruptible(), _standing(bed, evidence, keep=keep):
        shutil.rmtree(evidence, ignore_errors=True)
        result.unlink(missing_ok=True)
        evidence.mkdir(parents=True)
        with console.status("setting up two clusters") as status:
            begun = time.monotonic()
            bed.up(progress=lambda what: status.update(f"setting up: {what}"))
            console.print(f"Two clusters are up after {time.monotonic() - begun:.1f} s (tag {bed.layout.tag}).")
        outcomes = _play(bed, evidence, console, control=control)
    result.write_bytes(msgspec.json.format(msgspec.json.encode(outcomes), indent=2) + b"\n")
    console.print(_table(outcomes))
    failed = [outcome.step for outcome in outcomes if not outcome.ok]
    took = sum(outcome.seconds for outcome in outcomes)
    console.print(
        f"{len(outcomes) - len(failed)} of {len(outcomes)} steps as expected in {took:.0f} s; evidence: {evidence}/"
    )
    if control:
        confirmed = [outcome.ok for outcome in outcomes] == [True, False]
        console.print(f"control: without daemons step b {'fails, as it must' if confirmed else 'should fail alone'}")
        return confirmed
    return not failed


def _play(bed: Testbed, evidence: Path, console: Console, *, control: bool) -> list[Outcome]:
    capture = Capture(bed, evidence / "underlay.pcap")
    stage = Stage(bed, evidence, capture)
    outcomes = []
    try:
        for step in STEPS[:2] if control else (*STEPS, *POLICY_STEPS):
            if control and step.letter == "b":
                _stop_daemons(bed)
            with console.status(f"{step.letter}. {step.title}"):
                outcomes.append(_outcome(step, stage))
            if not console.is_terminal:
                console.print(f"{step.letter}. {step.title}: {'ok' if outcomes[-1].ok else 'FAILED'}")
    finally:
        stage.close()
        capture.stop()
    return outcomes


def _outcome(step: Step, stage: Stage) -> Outcome:
    begun = time.monotonic()
    try:
        seen = step.play(stage)
    except (ClientError, StartError, NetworkError, KeyError) as error:
        seen = Seen(False, str(error.args[0] if error.args else error))
    return Outcome(
        step=f"{step.letter}. {step.title}",
        expect=step.expect,
        seen=seen.text,
        ok=seen.ok,
        seconds=round(time.monotonic() - begun, 2),
    )


def _stop_daemons(bed: Testbed) -> None:
    for name in bed.parts:
        if "/daemon-" in name:
            bed.kill_part(name, signal.SIGTERM)


@contextmanager
def _standing(bed: Testbed, evidence: Path, *, keep: bool) -> Iterator[None]:
    """A testbed from scratch, gone at the end whatever happens; its logs are kept."""
    bed.down()
    try:
        yield
    except BaseException:
        Console(stderr=True).print(f"The demo ends early; the logs are in {evidence / 'logs'}/.")
        raise
    finally:
        with _undisturbed():
            witness.keep_logs(bed, evidence / "logs")
            if not keep:
                bed.down()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C does not end the cleaning up: it takes a second or two."""
    previous = [(number, signal.signal(number, signal.SIG_IGN)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for number, handler in previous:
            signal.signal(number, handler)


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does: with everything cleaned up."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    previous: Callable[..., object] | int | None = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _table(outcomes: list[Outcome]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_lines=True)
    table.add_column("step", ratio=2)
    table.add_column("expected", ratio=2)
    table.add_column("seen", ratio=4)
    table.add_column("")
    table.add_column("s", justify="right")
    for outcome in outcomes:
        mark = Text("ok", "green") if outcome.ok else Text("FAILED", "bold red")
        table.add_row(outcome.step, outcome.expect, outcome.seen, mark, f"{outcome.seconds:.1f}")
    return table
