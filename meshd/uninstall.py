"""`meshd uninstall`: takes one instance out of this node's kernel. Stopping the daemon never does."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from datapath.pins import PinsError
from datapath.uninstall import uninstall as uninstall_datapath
from meshd.socket import SocketError, get
from routing.devices import other_owners
from routing.exports import remove_exports
from routing.routes import remove_routes

EXIT_FAILED, EXIT_USAGE = 1, 3


class Failed(click.ClickException):
    """A step failed; what is named was not removed."""

    exit_code = EXIT_FAILED


@click.command()
@click.option("--instance", required=True, help="As the daemon has it: <cluster>.<node>.")
@click.option("--bpffs", type=click.Path(path_type=Path), required=True, help="Root of the bpffs that the daemon uses.")
@click.option("--run-dir", type=click.Path(path_type=Path), default=Path("/run/meshd"), show_default=True)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def uninstall(instance: str, bpffs: Path, run_dir: Path, output: str) -> None:
    """Removes every trace of an instance from this node: routes, rules, filters, devices, hooks, programs and maps.

    Runs in the node's network namespace, as root, when the daemon has ended. The mesh's traffic stops; everything else
    goes on. Nothing there is success. Exit codes: 0 all is gone, 1 the daemon runs or a step failed.
    """
    if _runs(run_dir / instance / "daemon.sock"):
        raise Failed(f"the daemon of {instance} runs: it would bring everything back; stop it first")
    try:
        others = other_owners(f"meshd:{instance}")  # routes carry no name: they are the instance's that is here
        routes = () if others else (*remove_routes(), *remove_exports())
        removed = {"routes": routes, **asdict(uninstall_datapath(bpffs, instance))}
    except PinsError as error:
        raise Failed(str(error)) from error
    except OSError as error:
        raise Failed(f"{error.strerror or error}: {error.filename or 'netlink'}; run it as root, and again") from error
    if output == "json":
        click.echo(json.dumps(removed, indent=2))
        return
    for kind, names in removed.items():
        click.echo(f"{kind}: {', '.join(names) or 'none was there'}")
    for other in others:
        click.echo(f"{other} is on this node: what routes are here are its own and stay", err=True)


def _runs(socket: Path) -> bool:
    try:
        get(socket, "/v1/status")
    except SocketError:
        return False
    return True
