"""`meshd proxy`: the read-only door of one cluster's etcd. Wires upstream, hub, server and the local API."""

import asyncio
import logging
import resource
import signal
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from pathlib import Path

import click
import yaml
from prometheus_client import CollectorRegistry
from pydantic import field_validator

from certs.names import CertsError, check_cluster_name
from certs.reload import LivePair
from etcdproxy.hub import Hub
from etcdproxy.limits import Limits
from etcdproxy.metrics import Metrics
from etcdproxy.policy import Policy, Users
from etcdproxy.report import Parts, readiness, report
from etcdproxy.server import ListenError, make_server
from etcdproxy.service import Service
from etcdproxy.upstream import Upstream
from etcdproxy.users import LiveUsers, UsersError
from meshd.config import ConfigError, load
from meshd.etcd import Endpoint, EtcdSettings
from meshd.health import HealthListenError, serve_health
from meshd.single import alone
from meshd.socket import serve

logger = logging.getLogger(__name__)

_SHUTDOWN_S = 1.0


class ProxyConfig(EtcdSettings):
    """Configuration of a proxy; the keys are the flags of `meshd proxy`."""

    cluster: str
    listen: str
    cert: Path
    key: Path
    ca: Path
    users: Path | None = None
    run_dir: Path = Path("/run/meshd")
    instance: str = ""
    health: str = ""
    limits: Limits = Limits()

    @field_validator("cluster")
    @classmethod
    def _check_cluster(cls, name: str) -> str:
        try:
            return check_cluster_name(name)
        except CertsError as error:
            raise ValueError(str(error)) from error

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, listen: str) -> str:
        host, _, port = listen.rpartition(":")
        if not host or not (port.isascii() and port.isdigit() and int(port) <= 65535):
            raise ValueError("must be IP:PORT with a port of at most 65535, as 0.0.0.0:2379 or [::]:2379")
        return listen

    @property
    def socket(self) -> Path:
        return self.run_dir / (self.instance or self.cluster) / "proxy.sock"


@click.command()
@click.option(
    "--config", "path", type=click.Path(path_type=Path), help="YAML file with these settings; flags override."
)
@click.option("--cluster", help="Name of the cluster that is served.")
@click.option("--listen", metavar="IP:PORT", help="Where readers connect.")
@click.option("--etcd", metavar="URL", help="The cluster's etcd, http://HOST:PORT; https:// with the next three.")
@click.option("--etcd-ca", type=click.Path(path_type=Path), help="CA of etcd's certificate (PEM).")
@click.option("--etcd-cert", type=click.Path(path_type=Path), help="Our certificate at etcd (PEM).")
@click.option("--etcd-key", type=click.Path(path_type=Path), help="Its key (PEM).")
@click.option("--cert", type=click.Path(path_type=Path), help="Server certificate (PEM).")
@click.option("--key", type=click.Path(path_type=Path), help="Its key (PEM).")
@click.option("--ca", type=click.Path(path_type=Path), help="CAs that readers' certificates must come from.")
@click.option("--users", type=click.Path(path_type=Path), help="YAML file: names to roles, and denied names.")
@click.option("--run-dir", type=click.Path(path_type=Path), help="Directory of the socket.  [default: /run/meshd]")
@click.option("--health", metavar="IP:PORT", help="Where /healthz, /readyz and /metrics are; nowhere if not given.")
@click.option("--instance", help="Name of this proxy below --run-dir.  [default: the cluster's]")
@click.option("--print-config", is_flag=True, help="Print the effective configuration as YAML and exit.")
def proxy(path: Path | None, print_config: bool, **flags: object) -> None:
    """Serve a cluster's etcd, read-only, to the holders of certificates."""
    config = load(ProxyConfig, path, flags)
    if print_config:
        click.echo(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), nl=False)
        return
    live, endpoint, users = _load_files(config)
    lock, remedy = config.socket.with_suffix(".lock"), "stop that one first, or give this one another --instance"
    try:
        with alone(lock, remedy=remedy):
            asyncio.run(run(config, live, endpoint, users))
    except ListenError as error:
        raise ConfigError(f"--listen: {error}") from error
    except HealthListenError as error:
        raise ConfigError(f"--health: {error}") from error


def _load_files(config: ProxyConfig) -> tuple[LivePair, Endpoint, LiveUsers | None]:
    problems: list[str] = []
    live, endpoint, users = None, None, None
    try:
        live = LivePair(config.cert, config.key, config.ca)
    except CertsError as error:
        problems.append(str(error))
    try:
        users = LiveUsers(config.users) if config.users else None
    except UsersError as error:
        problems.append(str(error))
    try:
        endpoint = config.endpoint()
    except ConfigError as error:
        problems.append(str(error))
    if problems or live is None or endpoint is None:
        raise ConfigError("\n".join(problems))
    return live, endpoint, users


async def run(config: ProxyConfig, live: LivePair, endpoint: Endpoint, users: LiveUsers | None) -> None:
    """Runs until SIGTERM or SIGINT; SIGHUP: looks at its files again. Raises ListenError or HealthListenError."""
    hub = Hub()
    upstream = Upstream(endpoint.target, hub, pair=endpoint.renewed)
    service = Service(hub, Policy(config.cluster, users.users if users else Users()), config.limits)
    server, port = make_server(service, config.listen, live)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def use(changed: Users) -> None:
        service.replace_policy(Policy(config.cluster, changed))

    def look() -> None:
        live.refresh()
        if users and users.refresh():
            use(users.users)

    loop.add_signal_handler(signal.SIGHUP, look)
    facts = {"cluster": config.cluster, "listen": config.listen}
    parts = Parts(hub, upstream, service, live, users)
    api = serve(config.socket, {"/v1/status": partial(report, facts, parts)})
    async with api, _health(config, parts), asyncio.TaskGroup() as group:
        tasks = [group.create_task(upstream.run()), group.create_task(service.run())]
        if users:
            tasks.append(group.create_task(users.follow(use)))
        await server.start()
        extra = {"cluster": config.cluster, "listen": config.listen, "port": port, "descriptors": raise_file_limit()}
        logger.info("proxy listens", extra=extra)
        await stop.wait()
        await server.stop(_SHUTDOWN_S)
        for task in tasks:
            task.cancel()
    logger.info("proxy stopped", extra={"cluster": config.cluster})


def raise_file_limit() -> int:
    """Allows this process as many open files as it may have, as each reader needs one; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _health(config: ProxyConfig, parts: Parts) -> AbstractAsyncContextManager[None]:
    if not config.health:
        return nullcontext()
    registry = CollectorRegistry()
    registry.register(Metrics(parts))
    return serve_health(config.health, partial(readiness, parts), registry)
