"""`meshd agent`."""

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import yaml

from meshd.agent.agent import Agent
from meshd.agent.etcd.connection import EtcdUnavailable
from meshd.agent.etcd.ownership import NotOurs
from meshd.agent.preview import Preview, SourceSilent, preview
from meshd.agent.program import run
from meshd.agent.settings import AgentConfig
from meshd.config import ConfigError, load
from meshd.health import HealthListenError

EXIT_OK, EXIT_DEGRADED, EXIT_BROKEN = 0, 1, 2


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="A YAML file of settings; flags override it.")
@click.option("--cluster", help="Name of this cluster.")
@click.option("--cluster-id", type=int, help="ID of this cluster, unique in the mesh.")
@click.option("--etcd", metavar="URL", help="This cluster's etcd, http://HOST:PORT; https:// with the next three.")
@click.option("--etcd-ca", type=click.Path(path_type=Path), help="CA of etcd's certificate (PEM).")
@click.option("--etcd-cert", type=click.Path(path_type=Path), help="Our certificate at etcd (PEM).")
@click.option("--etcd-key", type=click.Path(path_type=Path), help="Its key (PEM).")
@click.option("--manifests", type=click.Path(path_type=Path), help="Folder of Kubernetes YAML to publish and watch.")
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="Publish the cluster that this file names.")
@click.option("--context", help="The context of the kubeconfig to use; without --kubeconfig, of kubectl's own.")
@click.option("--in-cluster", is_flag=True, default=None, help="Publish the cluster that this pod runs in.")
@click.option(
    "--import-from",
    type=click.Path(path_type=Path),
    help="Clustermesh folder: write EndpointSlices for headless global services of these clusters.",
)
@click.option("--run-dir", type=click.Path(path_type=Path), help="Folder for the socket.  [default: /run/meshd]")
@click.option("--health", metavar="IP:PORT", help="Where /healthz, /readyz and /metrics are; nowhere if not given.")
@click.option("--instance", help="Name of the socket's folder.  [default: the cluster's name]")
@click.option("--lease-ttl", "lease_ttl_s", type=int, help="Life of the records after the agent, s.  [default: 900]")
@click.option("--once", is_flag=True, help="End when everything stands in etcd.")
@click.option("--dry-run", is_flag=True, help="Only show what would change in etcd: + added, ~ changed, - removed.")
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Form of what --dry-run shows."
)
@click.option("--print-config", is_flag=True, help="Only show the settings in force.")
def agent(config: Path | None, *, once: bool, dry_run: bool, output: str, print_config: bool, **flags: object) -> int:
    """Publish this cluster's services, nodes, identities and pod IPs into its etcd.

    With --dry-run, the exit code is 1 if an object cannot be published as it is, 2 without etcd or source.
    """
    settings = load(AgentConfig, config, flags)
    if print_config:
        click.echo(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), nl=False)
        return EXIT_OK
    if dry_run:
        return _show(settings, as_json=output == "json")
    try:
        asyncio.run(run(settings, once=once))
    except HealthListenError as error:
        raise ConfigError(f"--health: {error}") from error
    return EXIT_OK


@contextmanager
def _unlogged() -> Iterator[None]:
    """What the sources cannot read is shown, so it need not be logged beside that."""
    logger = logging.getLogger("meshd.agent.sources")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _show(settings: AgentConfig, *, as_json: bool) -> int:
    try:
        with _unlogged():
            found = asyncio.run(_preview(settings))
    except EtcdUnavailable as error:
        click.echo(f"meshd agent: etcd {settings.etcd} does not answer ({error}): start it, or name another", err=True)
        return EXIT_BROKEN
    except SourceSilent as error:
        click.echo(f"meshd agent: {error}", err=True)
        return EXIT_BROKEN
    except NotOurs as error:
        raise ConfigError(str(error)) from error
    if as_json:
        click.echo(json.dumps(found.document(), indent=2))
        return EXIT_DEGRADED if found.problems else EXIT_OK
    for line in found.lines():
        click.echo(line)
    for problem in found.problems:
        click.echo(f"! {problem}")
    counts = f"{len(found.added)} to add, {len(found.changed)} to change, {len(found.removed)} to remove"
    click.echo(f"{counts}, {len(found.problems)} problem(s)", err=True)
    return EXIT_DEGRADED if found.problems else EXIT_OK


async def _preview(settings: AgentConfig) -> Preview:
    joined = Agent(settings)
    try:
        return await preview(joined)
    finally:
        await joined.close()
