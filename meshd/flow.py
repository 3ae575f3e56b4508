"""`meshd explain flow`: who both ends are, the way with its reason, the verdict of policy."""

import json
from collections.abc import Iterator
from pathlib import Path

import click

from meshd.asking import OUTPUT, RUN_DIR, ask
from meshd.ends import End, doubts, route_of, takes_ends
from meshd.explain import Answer, explain, ip_lines
from meshd.policies import party_text
from meshd.status import EXIT_OF


@explain.command("flow")
@takes_ends
@RUN_DIR
@click.option("--instance", help="Only this one.  [default: those of SRC's node]")
@OUTPUT
@click.pass_context
def flow(
    ctx: click.Context,
    source: str,
    destination: End,
    protocol: str,
    run_dir: Path,
    instance: str | None,
    output: str,
) -> None:
    """Says who both ends of a flow are, which way its packets take and why, and what policy says of it.

    SRC and DST: an address, or [CLUSTER/]NAMESPACE/POD. Exit codes: 0 passes, 1 dropped, 2 no daemon answers or an end
    is not known.
    """
    words = route_of(source, destination, protocol)
    found, errors = ask(run_dir, instance, f"/v1/flow/{words}")
    errors += sorted({answer["error"] for answer in found if "error" in answer})
    found = [answer for answer in found if "error" not in answer]
    answers = [answer for answer in found if answer["source_is_here"]] or found
    for answer in answers:
        verdicts, _ = ask(run_dir, answer["instance"], f"/v1/policies/trace/{words}")
        answer["policy"] = verdicts[0] if verdicts else {"error": "the daemon does not answer"}
    if output == "json":
        click.echo(json.dumps(answers, indent=2))
    else:
        for answer in answers:
            for line in _flow_lines(answer):
                click.echo(line)
    for error in errors if not answers else doubts(source, destination, answers):
        click.echo(error, err=True)
    if not answers:
        ctx.exit(EXIT_OF["broken"])
    ctx.exit(EXIT_OF["ok" if all(map(_flow_passes, answers)) else "degraded"])


def _flow_passes(answer: Answer) -> bool:
    return bool(answer["way"]["kind"] != "unreachable" and answer["policy"].get("passes", True))


def _flow_lines(answer: Answer) -> Iterator[str]:
    yield f"from {answer['instance']}{'' if answer['source_is_here'] else ', which is not the node of the source'}"
    for end in ("source", "destination"):
        yield f"{end} {party_text(answer[end])}"
        yield from list(ip_lines(answer[end]))[1:]
    way = answer["way"]
    by = " ".join(f"{word} {way[key]}" for word, key in (("dev", "device"), ("via", "via")) if way.get(key))
    yield f"way: {' '.join(filter(None, (way['kind'], by)))}: {way['reason']}"
    policy = answer["policy"]
    if "error" in policy:
        yield f"policy: unknown: {policy['error']}"
        return
    for check in policy["checks"]:
        yield f"policy, {check['direction']}: {'passes' if check['passes'] else 'dropped'}: {'; '.join(check['by'])}"
