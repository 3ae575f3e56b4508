"""`meshd daemon`."""

import asyncio
from pathlib import Path

import click
import yaml

from meshd.config import ConfigError, load
from meshd.daemon.config import DaemonConfig
from meshd.daemon.datapath import DatapathError
from meshd.daemon.program import run_daemon
from meshd.health import HealthListenError
from policy.model import Mode
from routing.plan import Mode as RoutingMode

EXIT_OK = 0


def _namespaces(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str] | None:
    pairs = [text.partition("=") for text in given]
    for namespace, _, mode in pairs:
        if not namespace or mode not in list(Mode):
            raise click.BadParameter(f"{namespace}={mode}: must be NAMESPACE=off, audit or enforce")
    return {namespace: mode for namespace, _, mode in pairs} or None


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
@click.option("--health", metavar="IP:PORT", help="Where /healthz, /readyz and /metrics are; nowhere if not given.")
@click.option("--instance", help="Name of this daemon.  [default: <cluster>.<node>]")
@click.option("--tunnel", help="This node's tunnel, as it announces it.  [default: vxlan:8473]")
@click.option(
    "--routing-mode",
    type=click.Choice([mode.value for mode in RoutingMode]),
    help="Ways to other clusters' nodes.  [default: tunnel]",
)
@click.option(
    "--export-pod-cidrs/--no-export-pod-cidrs",
    default=None,
    help="This node's PodCIDRs stand in table 110, for a routing daemon to announce.  [default: no]",
)
@click.option(
    "--through-stack/--no-through-stack",
    default=None,
    help="Other clusters' packets pass this node's netfilter rules, as a CNI's policies need.  [default: no]",
)
@click.option("--underlay", type=click.Choice([4, 6]), help="IP version that tunnels use.  [default: 4]")
@click.option("--device", help="Underlay device.  [default: that of the default route]")
@click.option("--print-config", is_flag=True, help="Only show the settings in force.")
@click.option(
    "--policy",
    type=click.Choice([str(mode) for mode in Mode]),
    help="What comes of network policies.  [default: audit]",
)
@click.option(
    "--policy-namespace",
    "policy_namespaces",
    metavar="NAMESPACE=MODE",
    multiple=True,
    callback=_namespaces,
    help="The same for one namespace.",
)
@click.option(
    "--policy-default-local-cluster/--no-policy-default-local-cluster",
    default=None,
    help="A selector that names no cluster means this one.  [default: yes]",
)
def daemon(config: Path | None, *, print_config: bool, **flags: object) -> int:
    """Keeps this node's datapath equal to what all clusters say.

    Runs in the node's network namespace, as root. Stopping it takes nothing down.
    """
    settings = load(DaemonConfig, config, flags)
    if print_config:
        click.echo(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), nl=False)
        return EXIT_OK
    try:
        asyncio.run(run_daemon(settings))
    except DatapathError as error:
        raise Broken(str(error)) from error
    except HealthListenError as error:
        raise ConfigError(f"--health: {error}") from error
    return EXIT_OK
