"""`meshd daemon`."""

import asyncio
from pathlib import Path

import click

from meshd.config import load
from meshd.daemon.config import DaemonConfig
from meshd.daemon.datapath import DatapathError
from meshd.daemon.program import run_daemon


class Broken(click.ClickException):
    """The datapath cannot be brought up."""

    exit_code = 2


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="YAML file with these settings; flags override it.")
@click.option("--cluster", help="Name of this cluster.")
@click.option("--cluster-id", type=int, help="Its ID, 1 to 255.")
@click.option("--node", help="Name of this node.")
@click.option("--local", type=click.Path(path_type=Path), help="File that names this cluster's own proxy.")
@click.option("--clustermesh", type=click.Path(path_type=Path), help="Folder with a file per remote cluster.")
@click.option("--bpffs", type=click.Path(path_type=Path), help="Root of a mounted bpffs.")
@click.option("--cgroup", type=click.Path(path_type=Path), help="cgroup v2 folder whose sockets are balanced.")
@click.option("--run-dir", type=click.Path(path_type=Path), help="Where sockets are made.  [default: /run/meshd]")
@click.option("--instance", help="Name of this daemon.  [default: <cluster>.<node>]")
@click.option("--device", help="Underlay device.  [default: that of the default route]")
def daemon(config: Path | None, **flags: object) -> None:
    """Keeps this node's datapath equal to what all clusters say.

    Runs in the node's network namespace, as root. Stopping it takes nothing down.
    """
    settings = load(DaemonConfig, config, flags)
    try:
        asyncio.run(run_daemon(settings))
    except DatapathError as error:
        raise Broken(str(error)) from error
