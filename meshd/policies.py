"""`meshd policy`: which policies there are, and what becomes of a packet, from the daemons that decide it."""

import json
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from meshd.asking import INSTANCE, OUTPUT, RUN_DIR, ask, ask_each, show_each
from meshd.ends import End, doubts, route_of, takes_ends
from meshd.status import EXIT_OF

AUDITED = (
    "audit: what other clusters send to these pods is told, not dropped, and rules of the CNI do not see it "
    "(docs/policy.md: policy: enforce, through_stack)"
)


@click.group()
def policy() -> None:
    """Network policy: what there is, and what it means."""


@policy.command("list")
@RUN_DIR
@INSTANCE
@OUTPUT
@click.pass_context
def list_policies(ctx: click.Context, run_dir: Path, instance: str | None, output: str) -> None:
    """Lists the cluster's policies and the pods of each daemon's node that they hold for.

    Exit codes: 0 ok, 1 some are invalid, 2 no daemon answers.
    """
    by_name, errors = ask_each(run_dir, instance, "/v1/policies")
    answers = list(by_name.values())
    if output == "json":
        click.echo(json.dumps(answers, indent=2))
    else:
        show_each(by_name, lambda answer: policies_table(answer) if answer else "no policy is there")
        if any(row["audited"] for answer in answers for row in answer):
            click.echo(AUDITED, err=True)
    invalid = any(row["problem"] for answer in answers for row in answer)
    _finish(ctx, answers, errors, degraded=invalid)


@policy.command("trace")
@takes_ends
@RUN_DIR
@INSTANCE
@OUTPUT
@click.pass_context
def trace(
    ctx: click.Context,
    source: str,
    destination: End,
    protocol: str,
    run_dir: Path,
    instance: str | None,
    output: str,
) -> None:
    """Says what becomes of a first packet, and by which rules. SRC and DST: an address, or [CLUSTER/]NAMESPACE/POD.

    Exit codes: 0 passes, 1 dropped, 2 no daemon answers or a party is not known.
    """
    answers, errors = ask(run_dir, instance, f"/v1/policies/trace/{route_of(source, destination, protocol)}")
    errors += [answer["error"] for answer in answers if "error" in answer]
    answers = [answer for answer in answers if "error" not in answer]
    if output == "json":
        click.echo(json.dumps(answers, indent=2))
    else:
        for answer in answers:
            _show_trace(answer)
    for doubt in doubts(source, destination, answers):
        click.echo(doubt, err=True)
    _finish(ctx, answers, errors, degraded=not all(answer["passes"] for answer in answers))


@policy.command("inspect-default-local")
@RUN_DIR
@INSTANCE
@OUTPUT
@click.pass_context
def inspect_default_local(ctx: click.Context, run_dir: Path, instance: str | None, output: str) -> None:
    """Lists what would change if policy-default-local-cluster were switched.

    Exit codes: 0 nothing, 1 something, 2 no daemon answers.
    """
    answers, errors = ask(run_dir, instance, "/v1/policies/default-local")
    if output == "json":
        click.echo(json.dumps(answers, indent=2))
    else:
        for answer in answers:
            state = "on" if answer["default_local"] else "off"
            click.echo(f"policy-default-local-cluster is {state}; policies that would change: {len(answer['changes'])}")
            for change in answer["changes"]:
                click.echo(f"  {change['policy']}: identities {change['identities']}, {'; '.join(change['selectors'])}")
    _finish(ctx, answers, errors, degraded=any(answer["changes"] for answer in answers))


def policies_table(rows: list[dict[str, Any]]) -> Table:
    """One daemon's policies for people."""
    table = Table(box=None, padding=(0, 0, 0, 2))
    for heading in ("KIND", "NAMESPACE", "NAME", "CLOSES", "RULES", "PODS HERE"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        state = f"invalid: {row['problem']}" if row["problem"] else str(row["rules"])
        pods = ", ".join(_pod_text(pod, row) for pod in row["pods"]) or "-"
        table.add_row(row["kind"], row["namespace"] or "-", row["name"], ", ".join(row["closes"]) or "-", state, pods)
    return table


def _pod_text(pod: str, row: dict[str, Any]) -> str:
    if pod not in row["in_force"]:
        return f"{pod} not enforced"
    return f"{pod} audit" if pod in row["audited"] else pod


def _show_trace(answer: dict[str, Any]) -> None:
    click.echo(f"{party_text(answer['source'])} -> {party_text(answer['destination'])}")
    for check in answer["checks"]:
        verdict = "passes" if check.get("allowed", True) else "dropped" if not check["passes"] else "would be dropped"
        click.echo(f"  {check['direction']}: {verdict} ({check['mode']}): {'; '.join(check['by'])}")
    click.echo("passes" if answer["passes"] else "dropped")


def party_text(party: dict[str, Any]) -> str:
    """`default/x-wing (10.0.1.2, cluster1, identity 65540)`; without a pod its labels say who it is."""
    known = party["pod"] or ", ".join(party["labels"][:1]) or "unknown"
    if "netns" in party:
        return f"{known} (network namespace {party['netns']})"
    where = ", ".join(filter(None, (party["address"], party["cluster"], f"identity {party['identity']}")))
    return f"{known} ({where})"


def _finish(ctx: click.Context, answers: list[Any], errors: list[str], *, degraded: bool) -> None:
    for error in errors:
        click.echo(error, err=True)
    if errors or not answers:
        ctx.exit(EXIT_OF["broken"])
    ctx.exit(EXIT_OF["degraded" if degraded else "ok"])
