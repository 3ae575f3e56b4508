"""`meshd agent`."""

import asyncio
from pathlib import Path

import click

from meshd.agent.program import run
from meshd.agent.settings import AgentConfig
from meshd.config import ConfigError, load


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="A YAML file of settings; flags override it.")
@click.option("--cluster", help="Name of this cluster.")
@click.option("--cluster-id", type=int, help="ID of this cluster, unique in the mesh.")
@click.option("--etcd", metavar="URL", help="This cluster's etcd, http://HOST:PORT.")
@click.option("--manifests", type=click.Path(path_type=Path), help="Folder of Kubernetes YAML to publish and watch.")
@click.option("--run-dir", type=click.Path(path_type=Path), help="Folder for the socket.  [default: /run/meshd]")
@click.option("--instance", help="Name of the socket's folder.  [default: the cluster's name]")
@click.option("--lease-ttl", "lease_ttl_s", type=int, help="Life of the records after the agent, s.  [default: 900]")
def agent(config: Path | None, **flags: object) -> None:
    """Publish this cluster's services, nodes, identities and pod IPs into its etcd."""
    settings = load(AgentConfig, config, flags)
    if not settings.manifests.is_dir():
        raise ConfigError(f"manifests {settings.manifests}: is not a folder: create it, or name another one")
    asyncio.run(run(settings))
