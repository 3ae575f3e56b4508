"""What a cluster says of itself and its nodes, read once, before anybody is connected. Nothing is kept or written."""

from dataclasses import dataclass

import grpc.aio

from identity.numbering import identity_range
from meshd.daemon.credentials import BadCredentials, read_credentials
from meshd.daemon.etcd import Compacted, TooLarge, list_page, open_channel, peer_error
from meshd.daemon.link import PeerRejected, PeerUnavailable
from meshd.daemon.remotefile import RemoteFile
from meshd.daemon.watch import ListFrom
from wire.codec import BadRecord, Scope, decode, decode_cluster_config
from wire.keys import Kind, cluster_config, interval, prefix
from wire.records import ClusterConfig, Node, value_or

TIMEOUT_S = 5.0
NODES_MAX = 10_000
DEFAULT_MAX_CLUSTERS = 255


@dataclass(frozen=True, slots=True)
class Heard:
    """`problem`: why less than all was heard, "" if all was."""

    cluster: str
    config: ClusterConfig | None = None
    nodes: tuple[Node, ...] = ()
    problem: str = ""

    @property
    def max_clusters(self) -> int:
        """255 or 511; how identities are numbered depends on it."""
        config = self.config
        return value_or(config.capabilities.max_connected_clusters, DEFAULT_MAX_CLUSTERS) if config else 0


async def look(file: RemoteFile) -> Heard:
    """Asks the targets in turn. Raises nothing that the file or the cluster can cause."""
    try:
        credentials = read_credentials(file)
    except BadCredentials as error:
        return Heard(file.cluster, problem=str(error))
    problem = "no target"
    for target in file.targets:
        async with open_channel(target, credentials.channel, file.server_name) as channel:
            try:
                return await _read(channel, file.cluster)
            except grpc.aio.AioRpcError as error:
                problem = f"{target}: {peer_error(error, answered=False)}"
            except (PeerUnavailable, PeerRejected, TooLarge, Compacted, BadRecord) as error:
                problem = f"{target}: {error}"
    return Heard(file.cluster, problem=problem)


async def _read(channel: grpc.aio.Channel, cluster: str) -> Heard:
    key = cluster_config(cluster)
    answer = await list_page(channel, ListFrom(key.encode(), b"", 0), limit=1, timeout_s=TIMEOUT_S)
    if not answer.kvs:
        raise PeerUnavailable(f"{key} is not there: does the cluster's agent run, and is this its name?")
    config = decode_cluster_config(answer.kvs[0].value)
    heard = Heard(cluster, config)
    try:
        scope = Scope(cluster, config.id, identity_range(config.id, max_clusters=heard.max_clusters))
    except ValueError as error:
        return Heard(cluster, config, problem=str(error))
    folder = prefix(Kind.NODE, cluster)
    page = await list_page(channel, ListFrom(*interval(folder), 0), limit=NODES_MAX, timeout_s=TIMEOUT_S)
    nodes, bad = [], []
    for kv in page.kvs:
        try:
            name = kv.key.decode().removeprefix(folder)
            node = decode(Kind.NODE, name, kv.value, scope)
            assert isinstance(node, Node)  # noqa: S101 — what the kind is decoded to
            nodes.append(node)
        except (BadRecord, UnicodeDecodeError) as error:
            bad.append(str(error))
    problem = f"{len(bad)} node records are refused, the first: {bad[0]}" if bad else ""
    return Heard(cluster, config, tuple(nodes), problem)
