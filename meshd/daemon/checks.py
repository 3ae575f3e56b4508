"""What is looked at before a daemon starts: that its settings make sense together, and how its own proxy is reached."""

from datapath.layout import MAPS
from datapath.maglev import SIZES
from meshd.config import ConfigError
from meshd.daemon.config import DaemonConfig
from meshd.daemon.remotefile import BadRemoteFile, RemoteFile, parse_remote_file
from routing.tunnel import BadTunnel, parse_tunnel
from wire.keys import is_cluster_name


def read_local_file(config: DaemonConfig) -> RemoteFile:
    """How our own proxy is reached. Raises ConfigError."""
    try:
        text = config.local.read_text()
        return parse_remote_file(config.cluster, text, folder=config.local.parent)
    except OSError as error:
        raise ConfigError(f"--local {config.local}: cannot be read ({error.strerror})") from error
    except BadRemoteFile as error:
        raise ConfigError(f"--local {config.local}: {error}") from error


def check(config: DaemonConfig) -> None:
    """What a type cannot say. Raises ConfigError with all problems."""
    problems = []
    if not is_cluster_name(config.cluster):
        problems.append(f"cluster: {config.cluster!r} is no cluster name (1 to 32 of a-z, 0-9 and '-')")
    if config.max_clusters not in (255, 511):
        problems.append(f"max_clusters: must be 255 or 511, is {config.max_clusters}")
    if not 1 <= config.cluster_id <= config.max_clusters:
        problems.append(f"cluster_id: must be 1 to {config.max_clusters}, is {config.cluster_id}")
    if config.maglev_size not in SIZES:
        problems.append(f"maglev_size: must be one of {', '.join(map(str, SIZES))}, is {config.maglev_size}")
    problems += [f"map_sizes: there is no map {name}" for name in sorted(config.map_sizes.keys() - MAPS.keys())]
    problems += [f"map_sizes: {name} must have room for 1 at least" for name, n in config.map_sizes.items() if n < 1]
    if config.through_stack and not config.host_routes:
        problems.append(
            "through_stack: needs host_routes, by which the node's stack reaches the pods of other clusters"
        )
    try:
        parse_tunnel(config.tunnel)
    except BadTunnel as error:
        problems.append(f"tunnel: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
